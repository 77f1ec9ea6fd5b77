"""Base models for training: loaded for a task, in the precision that the settings ask for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thresher.errors import InputError, MissingExtraError, SettingsError, first_three
from thresher.models.causal_lm.base_model import (
    BaseModel,
    QuietLoading,
    find_base,
    first_line,
    load_causal_lm,
    loading_errors,
)
from thresher.models.device import check_device, may_have_gpu
from thresher.models.precision import gains_from_bfloat16
from thresher.models.untrusted.fit import check_size
from thresher.trainer.engine.pooled_classifier import PooledClassifier
from thresher.trainer.engine.pooling import Pooling
from thresher.trainer.settings import Precision, Task, TrainSettings

MINILM, SHORT_MINILM = "sentence-transformers/all-MiniLM-L6-v2", "minilm"
# Layers between encoder and head that are trained whole where the base has them: an encoder that
# was trained for mean-pooled embeddings never trained its pooler, and a low-rank update is too
# little to repair it.
POOLERS = ("pooler", "pre_classifier")


@dataclass(frozen=True)
class LoadedModel:
    """A base model, and its layers that the checkpoint lacks, which are initialized at random."""

    model: Any
    new_layers: tuple[str, ...] = ()


def load_model(
    base: BaseModel,
    *,
    task: Task,
    settings: TrainSettings,
    pad_id: int,
    labels: Sequence[str] = (),
    pooling: Pooling | None = None,
) -> LoadedModel:
    """Load the weights for a task; a new head is initialized from torch's current random state.

    Args:
        base: found by `find_base`.
        task: decides the class of the model.
        settings: `precision` and `load_in_4bit` are read.
        pad_id: the tokenizer's padding token.
        labels: in the order of the head's outputs.
        pooling: that a classifier reads; None for the architecture's own head.

    Raises:
        InputError: transformers has no such architecture for the task, its weights are damaged or
            not whole, or it would need the repository's own code.
    """
    import torch

    options: dict[str, Any] = {"dtype": torch.bfloat16 if settings.precision == "bf16" else torch.float32}
    if settings.load_in_4bit:
        options |= build_4bit_options(settings)
    if task != "classification":
        model = load_causal_lm(base, task=task, **options)
        model.config.pad_token_id = pad_id  # not an option of loading: RWKV knows none
        return LoadedModel(model)
    if pooling is not None:
        return LoadedModel(PooledClassifier(load_body(base, pad_id, options), pooling, labels))
    return _load_own_classifier(base, pad_id, labels, options)


def _load_own_classifier(base: BaseModel, pad_id: int, labels: Sequence[str], options: dict[str, Any]) -> LoadedModel:
    """Load a base with the head of its architecture."""
    from transformers import AutoModelForSequenceClassification

    id2label, owner = dict(enumerate(labels)), f"model '{base.name}'"
    try:
        with QuietLoading():
            check_size(base.folder, AutoModelForSequenceClassification, owner=owner, num_labels=len(labels))
            model, report = AutoModelForSequenceClassification.from_pretrained(
                base.folder,
                use_safetensors=True,
                trust_remote_code=False,
                num_labels=len(labels),
                id2label=id2label,
                label2id={label: code for code, label in id2label.items()},
                pad_token_id=pad_id,
                ignore_mismatched_sizes=True,  # a base with a head of its own for other labels
                output_loading_info=True,
                **options,
            )
    except InputError:
        raise
    except loading_errors() as error:
        raise InputError(f"model '{base.name}': cannot be loaded for classification ({first_line(error)})") from None
    resized = (name if isinstance(name, str) else name[0] for name in report["mismatched_keys"])
    missing = sorted({*report["missing_keys"], *resized})
    return LoadedModel(model, _list_new_layers(base, model.base_model_prefix, missing))


def load_body(base: BaseModel, pad_id: int, options: dict[str, Any]) -> Any:
    """Load what is below a head; of a pooler, which is not read, weights may be missing."""
    from transformers import AutoModel

    try:
        with QuietLoading():
            check_size(base.folder, AutoModel, owner=f"model '{base.name}'")
            body, report = AutoModel.from_pretrained(
                base.folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
            )
    except InputError:
        raise
    except loading_errors() as error:
        raise InputError(f"model '{base.name}': cannot be loaded for classification ({first_line(error)})") from None
    body.config.pad_token_id = pad_id
    _require_body(base, [name for name in report["missing_keys"] if not set(POOLERS) & set(name.split("."))])
    return body


def _list_new_layers(base: BaseModel, body: str, missing: Sequence[str]) -> tuple[str, ...]:
    """Return the layers around a body whose weights are missing or do not fit.

    Raises:
        InputError: weights of the body itself are missing.
    """
    _require_body(
        base, [name for name in missing if name.startswith(f"{body}.") and not set(POOLERS) & set(name.split("."))]
    )
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in missing))


def _require_body(base: BaseModel, missing: Sequence[str]) -> None:
    if missing:
        raise InputError(
            f"model '{base.name}': the weights below its head must be complete, missing are "
            f"{first_three(sorted(missing))}; take the whole checkpoint"
        )


def refuse_quantized(base: BaseModel) -> None:
    """Refuse weights stored in few bits: an adapter that learns on them fits their rounding.

    Raises:
        InputError: the configuration names a method of quantization.
    """
    quantization = json.loads((base.folder / "config.json").read_bytes()).get("quantization_config")
    if quantization:
        raise InputError(
            f"model '{base.name}': training needs weights that are not quantized, found "
            f"'{quantization.get('quant_method', 'an unnamed method')}'; take the checkpoint that they were made from "
            f"(load_in_4bit quantizes it while loading)"
        )


def get_loadable_name(base: BaseModel) -> str:
    """Return what finds the base from anywhere: its name, or the absolute path of a folder."""
    folder = Path(base.name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base.name


def build_4bit_options(settings: TrainSettings) -> dict[str, Any]:
    """Return the loading options of a 4-bit base model.

    Raises:
        SettingsError: there is no CUDA device.
        MissingExtraError: bitsandbytes is not installed.
    """
    import importlib.util

    import torch

    if settings.device in ("cpu", "mps"):
        raise SettingsError(
            f"train: load_in_4bit needs a CUDA GPU, got device '{settings.device}'; leave one of them out"
        )
    if not torch.cuda.is_available():
        raise SettingsError("train: load_in_4bit needs a CUDA GPU, found none; leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "load_in_4bit", "gpu")
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def choose_precision(precision: Precision, *, base: BaseModel, task: Task, device: str | None = None) -> Precision:
    """Return "fp32" or "bf16": what "auto" means for a model on a device, and others as is.

    Classifiers stay in float32 on a CPU: their head starts from what the untouched base says.

    Raises:
        SettingsError: there is no such device.
    """
    check_device(device)
    if precision != "auto":
        return precision
    if device != "cpu" and may_have_gpu():
        import torch

        if torch.cuda.is_available():
            return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        if torch.backends.mps.is_available():
            return "fp32"
    return "bf16" if task != "classification" and gains_from_bfloat16(base.folder) else "fp32"


def find_minilm_base() -> BaseModel:
    """Return the base of a classifier where none is named.

    It has its name on the Hub, so that an adapter made here can be loaded anywhere.
    """
    from thresher.models.encoders.minilm import SHA256, minilm_folder

    return replace(find_base(minilm_folder(), fingerprint=SHA256), name=MINILM)


def find_named_base(name: str | Path) -> BaseModel:
    """Return the base model of that name; MiniLM, which comes along, is not asked for on the Hub.

    Args:
        name: SHORT_MINILM or its name on the Hub, another name there, or a folder.

    Raises:
        NotFoundError: there is no such model.
    """
    from thresher.models.encoders.load import missing_for_minilm

    if Path(name).exists() or str(name) not in (SHORT_MINILM, MINILM):
        return find_base(name)
    return find_base(name) if str(name) == MINILM and missing_for_minilm() else find_minilm_base()
