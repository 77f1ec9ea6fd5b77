"""Adapters of peft on a causal language model: their base, and how they are put in place."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from thresher.errors import InputError
from thresher.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from thresher.models.causal_lm.base_model import first_line, loading_errors
from thresher.models.untrusted.adapter import check_adapter_config, check_patterns
from thresher.models.untrusted.folder import check_files, read_json

OTHER_TASKS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
MAX_NAME = 4096  # characters of a path
INNER = "base_model.model."  # what peft writes before the name of a module
# Where an adapter keeps a whole embedding: added by peft when it was resized, as a module to save,
# or below a LoRA.
WHOLE = (".weight", ".modules_to_save.weight", ".base_layer.weight")


def read_base_name(folder: Path) -> str:
    """Return the name of an adapter's base, "NAME@REVISION" where the adapter says a revision.

    Raises:
        InputError: its configuration is damaged, names no base, or does not fit its weights; or a
            file is damaged or lies elsewhere.
    """
    owner = f"model '{folder}'"
    files = check_files(folder, owner=owner, patterns=("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"))
    config = read_json(folder / ADAPTER_CONFIG, owner=owner)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not isinstance(revision, str | None):
        raise InputError(
            f"{owner}: {ADAPTER_CONFIG} must name its base_model_name_or_path as a text, got {repr(name)[:80]}; "
            f"correct it"
        )
    check_adapter_config(config, files)
    return f"{name}@{revision}" if revision else str(name)


def apply_adapter(model: Any, folder: Path, *, name: str) -> Any:
    """Return a causal language model with an adapter's layers in place, its embedding resized.

    Args:
        model: the base; it is changed.
        folder: of the adapter.
        name: of the model, for messages.

    Raises:
        InputError: the adapter is no safetensors, is damaged, does not fit the base, or is of a
            kind that does not change layers everywhere.
    """
    from peft import PeftModel

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"model '{name}': an adapter's weights must be {ADAPTER_WEIGHTS}, found none; convert it")
    try:
        names = [module for module, _ in model.named_modules()]
        check_patterns(read_json(folder / ADAPTER_CONFIG, owner=f"model '{name}'"), names, owner=f"model '{name}'")
        _fit_embedding(model, folder, name)
        with warnings.catch_warnings():
            # peft 0.21 reads a property that transformers 5.23 renamed; nothing a user could act on
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            # ... and the ranks it has itself written for experts, which it has used by then
            warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys did not match")
            # they would stay as drawn
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, folder)
    except UserWarning as warning:
        raise InputError(f"model '{name}': the adapter lacks weights ({first_line(warning)}); copy it again") from None
    except loading_errors() as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"model '{name}': the adapter cannot be put in place ({first_line(error)})") from None
    config = adapted.active_peft_config
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise InputError(
            f"model '{name}': an adapter must change layers (LoRA and its kin), got one that adds prompt tokens "
            f"({config.peft_type.value}); merge or choose another"
        )
    if config.task_type in OTHER_TASKS:
        raise InputError(
            f"model '{name}': scoring needs an adapter on a causal language model, got one of task type "
            f"{str(config.task_type)}; choose another"
        )
    if getattr(config, "alora_invocation_tokens", None):
        raise InputError(
            f"model '{name}': an adapter must change the whole text, got an activated LoRA, which works behind its "
            f"invocation tokens only; choose another"
        )
    return adapted.get_base_model()


def disable_adapter(model: Any) -> AbstractContextManager[Any]:
    """Return a context in which a model with an adapter of peft is its base."""
    from peft import PeftModel

    disabled: AbstractContextManager[Any] = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
    return disabled


def _fit_embedding(model: Any, folder: Path, name: str) -> None:
    """Give the model as many token ids as the adapter knows: some were added, or cut off.

    Raises:
        InputError: it brings rows for one of the two embeddings, and the other is separate and
            would be left short.
    """
    import torch
    from safetensors import safe_open

    names = {id(part): key for key, part in model.named_modules()}
    parts = [part for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        keys = set(file.keys())
        n_ids = [
            [file.get_slice(key).get_shape()[0] for end in WHOLE if (key := INNER + names[id(part)] + end) in keys]
            for part in parts
        ]
    sizes = {size for each in n_ids for size in each}
    if sizes <= {parts[0].weight.shape[0]}:
        return
    is_tied = parts[-1].weight is parts[0].weight
    if len(sizes) > 1 or not (is_tied or all(n_ids)):
        raise InputError(
            f"model '{name}': an adapter for another number of tokens must hold both embeddings, found one; save it "
            f"with save_embedding_layers=True"
        )
    devices = [model.device] if model.device.type == "cuda" else []
    # new rows are drawn before those of the adapter take their place
    with torch.random.fork_rng(devices):
        model.resize_token_embeddings(sizes.pop(), mean_resizing=False)
