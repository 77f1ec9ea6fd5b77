"""Logits at chosen positions alone: the vocabulary is wide, and prompts are not learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from thresher.models.precision import full_precision, same_logits

if TYPE_CHECKING:
    import torch

PROBE_TOKENS = 8
_CAN_CHOOSE: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def compute_chosen_logits(model: Any, inputs: dict[str, Any], is_read: torch.Tensor) -> torch.Tensor:
    """Run a causal language model, and apply its head where the logits are read.

    The whole model is called, so that what wraps it (accelerate, DDP, peft) and what it does to its
    logits (soft-capping, scaling) stay in place; its head is given the chosen hidden states only.
    Models where that gives other logits are found by a probe, once per model, and run whole.

    Args:
        model: of transformers, perhaps wrapped.
        inputs: of its forward: `input_ids` (b, t), and what else it needs.
        is_read: (b, t) bool, s of them true.

    Returns:
        (s, vocabulary) logits, in the order of `is_read`, with gradients where they are recorded.
    """
    bare = _unwrap(model)
    is_read = _pass_by_virtual_tokens(bare, is_read)
    if bare not in _CAN_CHOOSE:
        _CAN_CHOOSE[bare] = _is_same_by_choice(bare, is_read.device)
    if not _CAN_CHOOSE[bare]:
        logits: torch.Tensor = model(**inputs).logits[is_read]
        return logits
    return _run_chosen(model, inputs, is_read)


def _run_chosen(model: Any, inputs: dict[str, Any], is_read: torch.Tensor) -> torch.Tensor:
    def choose(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (arguments[0][is_read][None], *arguments[1:])  # (1, s, d)

    hook = _unwrap(model).get_output_embeddings().register_forward_pre_hook(choose)
    try:
        logits: torch.Tensor = model(**inputs).logits[0]
    finally:
        hook.remove()
    return logits


def _unwrap(model: Any) -> Any:
    from torch.nn.parallel import DistributedDataParallel

    return model.module if isinstance(model, DistributedDataParallel) else model


def _pass_by_virtual_tokens(model: Any, is_read: torch.Tensor) -> torch.Tensor:
    """Return what is read where a prompt of virtual tokens comes before the others: (b, t + v)."""
    from torch.nn.functional import pad

    config = getattr(model, "active_peft_config", None)
    if config is None or config.peft_type != "PROMPT_TUNING":
        return is_read
    return pad(is_read, (int(config.num_virtual_tokens), 0))


def _is_same_by_choice(model: Any, device: torch.device) -> bool:
    """Tell whether a model says the same where its head is given some of the hidden states."""
    import torch

    if model.get_output_embeddings() is None:
        return False
    n = int(model.config.get_text_config().vocab_size)
    ids = (torch.arange(2 * PROBE_TOKENS, device=device) % n).view(2, -1)
    is_read = ids % 3 == 1
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), full_precision():
            is_read = _pass_by_virtual_tokens(model, is_read)
            whole = model(input_ids=ids).logits[is_read].float()
            chosen = _run_chosen(model, {"input_ids": ids}, is_read).float()
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False  # its head is given something else than (b, t, d), or what follows needs all
    finally:
        model.train(was_training)
    return chosen.shape == whole.shape and same_logits(whole, chosen, itemsize=model.dtype.itemsize)
