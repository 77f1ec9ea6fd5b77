"""Base models for training: loading them for a task, with the precision that the settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from thresher.errors import InputError, MissingExtraError, SettingsError
from thresher.features.base_model import BaseModel, QuietLoading, find_base, first_line, load_causal_lm, loading_errors
from thresher.features.causal_lm import EMBEDDED_NAME
from thresher.trainer.settings import Task, TrainSettings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def load_model(
    base: BaseModel, *, task: Task, settings: TrainSettings, is_bf16: bool, pad_id: int, classes: Sequence[str] = ()
) -> Any:
    """Load the weights for a task. A new classification head is drawn from torch's current random state.

    Args:
        base: found by `find_base`.
        task: decides the class of the model.
        settings: `load_in_4bit` is read.
        is_bf16: hold the weights in bfloat16.
        pad_id: the tokenizer's padding token.
        classes: labels, in the order of the head's outputs.

    Raises:
        InputError: transformers has no such architecture for the task, its weights are damaged or not whole, or it
            would need the repository's own code.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    options: dict[str, Any] = {
        "dtype": torch.bfloat16 if is_bf16 else torch.float32,
    }
    if settings.load_in_4bit:
        options |= four_bit(is_bf16=is_bf16)
    if task != "classification":
        model = load_causal_lm(base, task=task, **options)
        model.config.pad_token_id = pad_id  # not an option of loading: RWKV knows none
        return model
    id2label = dict(enumerate(classes))
    try:
        with QuietLoading():
            return AutoModelForSequenceClassification.from_pretrained(
                base.folder,
                use_safetensors=True,
                trust_remote_code=False,
                num_labels=len(classes),
                id2label=id2label,
                label2id={label: code for code, label in id2label.items()},
                pad_token_id=pad_id,
                ignore_mismatched_sizes=True,  # a base with a head of its own for other labels
                **options,
            )
    except loading_errors() as error:
        raise InputError(f"model '{base.name}': cannot be loaded for {task} ({first_line(error)})") from None


def four_bit(*, is_bf16: bool) -> dict[str, Any]:
    """Return the loading options of a 4-bit base model.

    Raises:
        SettingsError: there is no CUDA device.
        MissingExtraError: bitsandbytes is not installed.
    """
    import importlib.util

    import torch

    if not torch.cuda.is_available():
        raise SettingsError("train: load_in_4bit needs a CUDA GPU, found none; leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "load_in_4bit", "gpu")
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if is_bf16 else torch.float32
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def wants_bf16(precision: str) -> bool:
    """Decide whether to compute in bfloat16: "auto" does where the GPU has it."""
    import torch

    if precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return precision == "bf16"


def embedded_base(task: Task) -> BaseModel:
    """Return the model that comes with the package for a task, under the name that its adapters give as their base.

    MiniLM has its name on the Hub, so that an adapter made here can be loaded anywhere; the causal language model is
    where thresher is installed.
    """
    if task == "classification":
        from thresher.features.minilm import SHA256, minilm_folder

        return replace(find_base(minilm_folder(), fingerprint=SHA256), name=MINILM)
    return find_base(EMBEDDED_NAME)
