"""Generation token by token, as the logits say: a model's own generation settings do not count."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from thresher.models.causal_lm.adapter import disable_adapter
from thresher.models.precision import full_precision, same_logits

if TYPE_CHECKING:
    import torch

PROBE_TOKENS = 6


def generate_plainly(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    *,
    max_new_tokens: int,
    pad_id: int,
    stops: Collection[int],
    **more: Any,
) -> torch.Tensor:
    """Return prompts with the likeliest tokens added, (b, width + at most max_new_tokens) int64.

    transformers fills what a call does not say from the model's generation_config.json: sampling,
    beams, penalties, suppressed words, least lengths. Here nothing is filled, and nothing is warned
    of that the caller never set.

    Args:
        model: a causal language model in evaluation mode, or a peft model on one.
        ids: (b, width) prompts, padded on the left.
        mask: (b, width) 1 for tokens, 0 for padding.
        max_new_tokens: limit of an answer.
        pad_id: padding behind an answer that ended.
        stops: tokens that end an answer.
        more: for `generate`: a cache, or logits processors that change what is likeliest.
    """
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad_id,
        eos_token_id=sorted(stops),
        use_cache=True,
    )
    with _without_own_settings(model), full_precision():
        out: torch.Tensor = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **more)
    return out


def ignores_padding(model: Any, device: torch.device) -> bool:
    """Tell whether padding left of a prompt leaves alone what follows, by a probe of two steps.

    Some recurrent models (RWKV, RecurrentGemma) read padding like any token, whatever the mask
    says. Adapters in the layers do not change that, and are left out: in bfloat16 their products
    round otherwise for prompts of another length, which layer by layer grows to more than rounding.
    """
    import torch
    from transformers import GenerationConfig

    n = int(model.config.get_text_config().vocab_size)
    prompt = torch.arange(1, PROBE_TOKENS + 1, device=device)[None] % n
    padding = torch.zeros_like(prompt)
    outputs = {"output_logits": True, "return_dict_in_generate": True}
    config = GenerationConfig(do_sample=False, max_new_tokens=2, pad_token_id=0, use_cache=True, **outputs)

    def compute_logits(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), _without_own_settings(model), full_precision(), _without_layer_adapters(model):
            out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        return torch.stack(out.logits).float()

    alone = compute_logits(prompt, torch.ones_like(prompt))
    behind = compute_logits(torch.cat([padding, prompt], 1), torch.cat([padding, torch.ones_like(prompt)], 1))
    return same_logits(alone, behind, itemsize=model.dtype.itemsize)


def read_stop_ids(settings: Any) -> set[int]:
    """Return the tokens that end an answer by the `eos_token_id` of a model's settings."""
    return {*(settings if isinstance(settings, list) else [settings])} - {None}


def _without_layer_adapters(model: Any) -> AbstractContextManager[Any]:
    from peft import PeftModel

    # virtual tokens before the prompt are read with it
    is_prompt = isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning
    return nullcontext() if is_prompt else disable_adapter(model)


@contextmanager
def _without_own_settings(model: Any) -> Iterator[None]:
    from transformers import GenerationConfig

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        with warnings.catch_warnings():  # of virtual tokens, which peft counts itself
            warnings.filterwarnings("ignore", message="Position ids are not supported")
            yield
    finally:
        inner.generation_config = own
