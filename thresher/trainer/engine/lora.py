"""Adapters on a base model, through peft: LoRA (Hu et al. 2021, arXiv:2106.09685), and others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from thresher.artifacts.disk_errors import writing_safetensors
from thresher.artifacts.folder import write_atomic
from thresher.errors import InputError
from thresher.models.causal_lm.base_model import BaseModel, first_line
from thresher.trainer.engine.adapters.kinds import build_config, name_adapter
from thresher.trainer.engine.adapters.starts import has_start, save_with_start
from thresher.trainer.engine.adapters.updates import freeze_parameters
from thresher.trainer.engine.adapters.whole_model import save_whole, train_whole
from thresher.trainer.engine.load_model import POOLERS, get_loadable_name
from thresher.trainer.engine.pooled_classifier import PooledClassifier, load_head, write_head
from thresher.trainer.settings import Task, TrainSettings

HEADS = ("classifier", "score")  # peft trains these whole by itself
# Layers that count as linear and are none to adapt: routers give two tensors, grouped weights are
# no matrix.
NO_PLAIN_LAYER = ("Router", "GroupedLinear")
# ... and those whose weights Mamba's code reads past the layer: one wherever it stands, one in the
# models of peft's own table (`_check_lora_target_modules_mamba`).
READ_PAST, READ_PAST_IN_MAMBA = "dt_proj", "out_proj"
LANGUAGE = "language_model"  # where models of several kinds of input have what reads text
MAMBA = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """What an adapter depends on besides the settings.

    Attributes:
        n_steps: optimizer steps of the run: AdaLoRA's schedule needs it.
        seed: of the run.
        left_out: layers that are not adapted, by name in the part that gets the adapter.
        start: peft folder of the adapter that training continues, or None for a fresh one.
    """

    n_steps: int = 1
    seed: int = 0
    left_out: tuple[str, ...] = ()
    start: Path | None = None


PLAIN = Attachment()


def attach_adapter(
    model: Any,
    settings: TrainSettings,
    *,
    task: Task,
    base: BaseModel,
    new_layers: Sequence[str] = (),
    attachment: Attachment = PLAIN,
) -> Any:
    """Return the model with an adapter; only it, the head and a pooler are trainable, in float32.

    Of a pooled classifier, the body gets the adapter, and a pooler, which is not read, none.

    The new matrices are initialized from torch's current random state.

    Args:
        model: the base model for the task.
        settings: the fields `adapter`, `lora_*`, `rslora`, `dora`, `load_in_4bit`,
            `gradient_checkpointing` are read.
        task: of the training run.
        base: its name and revision are written into the adapter.
        new_layers: layers that the checkpoint does not have. They are trained whole, and so saved:
            initialized again, they would be others.
        attachment: what the kind of adapter needs to know of the run.

    Raises:
        InputError: the model has no layer of a name in `lora_targets`, or its layers cannot be
            adapted.
    """
    if settings.adapter == "full":
        return _prepare_whole(model, settings)
    if isinstance(model, PooledClassifier):
        unread = [name for name, _ in model.body.named_modules() if name.split(".")[0] in POOLERS]
        task_type = "FEATURE_EXTRACTION"
        model.body = _attach(model.body, settings, base, attachment, task_type=task_type, unread=unread)
        if attachment.start is not None:
            load_head(model, attachment.start)
        return model
    is_classification = task == "classification"
    poolers = [name for name in POOLERS if name in _list_layers(model)] if is_classification else []
    new_layers = [name for name in new_layers if not {*HEADS, *poolers} & set(name.split("."))]
    task_type = "SEQ_CLS" if is_classification else "CAUSAL_LM"
    whole = [*poolers, *new_layers]
    return _attach(model, settings, base, attachment, task_type=task_type, whole=whole, unread=new_layers)


def _prepare_whole(model: Any, settings: TrainSettings) -> Any:
    train_whole(model)
    if settings.gradient_checkpointing:
        _checkpoint_activations(model.body if isinstance(model, PooledClassifier) else model)
    return model


def _attach(
    model: Any,
    settings: TrainSettings,
    base: BaseModel,
    attachment: Attachment,
    *,
    task_type: str,
    whole: Sequence[str] = (),
    unread: Sequence[str] = (),
) -> Any:
    """Return a transformers model with an adapter.

    Args:
        model: of transformers.
        settings: as above.
        base: as above.
        attachment: as above.
        task_type: of peft.
        whole: layers that are trained whole.
        unread: layers that get no low-rank update: they are trained whole, or nothing reads them.
    """
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training

    if settings.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = settings.lora_targets
    _require_layers(model, () if targets == "auto" else targets)
    unfit = _list_unfit(model) if targets == "auto" else []
    config = build_config(
        settings,
        task_type=task_type,
        n_steps=attachment.n_steps,
        seed=attachment.seed,
        linear=[name for name, part in _find_linear(model) if part is not model.get_output_embeddings()],
        excluded=[*unread, *unfit, *attachment.left_out],
        whole=whole,
    )
    names = _list_linear_layers(model)  # before peft puts its own between them
    try:
        with _silence_warnings():
            if attachment.start is None:
                adapted = get_peft_model(model, config)
            else:
                adapted = PeftModel.from_pretrained(model, attachment.start, is_trainable=True)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        layers = "all linear layers" if targets == "auto" else ", ".join(targets)
        raise InputError(
            f"model '{base.name}': {name_adapter(settings)} cannot be put on {layers} ({first_line(error)}); name "
            f"others as lora_targets, of {', '.join(names)}"
        ) from None
    own = adapted.peft_config["default"]
    own.base_model_name_or_path, own.revision = get_loadable_name(base), base.revision
    for parameter in get_trainable_parameters(adapted).values():
        parameter.data = parameter.data.float()
    freeze_parameters(adapted, settings)
    if settings.precision == "bf16":
        _leave_inputs_in_bfloat16(adapted)
    if settings.gradient_checkpointing:
        _checkpoint_activations(adapted)
    adapted.config.use_cache = False
    return adapted


def _leave_inputs_in_bfloat16(model: Any) -> None:
    """Keep peft from copying what a layer reads to float32, which autocast rounds back at once."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part in model.modules():
        if isinstance(part, BaseTunerLayer):
            part.cast_input_dtype_enabled = False


def load_adapter(model: Any, folder: Path) -> Any:
    """Return the base model with the adapter of a peft folder, in evaluation mode."""
    from peft import PeftModel

    if isinstance(model, PooledClassifier):
        load_head(model, folder)
        model.body = load_adapter(model.body, folder)
        return model.eval()
    with _silence_warnings():
        return PeftModel.from_pretrained(model, folder).eval()


def _require_layers(model: Any, targets: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    absent = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if absent:
        raise InputError(
            f"lora_targets: must name layers of the model, got {', '.join(absent)}; its linear layers are "
            f"{', '.join(_list_linear_layers(model))}"
        )


def _find_linear(model: Any) -> list[tuple[str, Any]]:
    return [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]


def _list_linear_layers(model: Any) -> list[str]:
    return sorted({name.rsplit(".", 1)[-1] for name, _ in _find_linear(model)})


def _list_unfit(model: Any) -> list[str]:
    """Return the layers that "auto" leaves out: none of images and sounds is read here."""
    read_past = {READ_PAST, *([READ_PAST_IN_MAMBA] if model.config.model_type in MAMBA else [])}
    linear = _find_linear(model)
    has_others = any(LANGUAGE in name.split(".") for name, _ in linear)
    return [
        name
        for name, part in linear
        if name.rpartition(".")[2] in read_past
        or any(kind in type(part).__name__ for kind in NO_PLAIN_LAYER)
        or (has_others and LANGUAGE not in name.split(".") and part is not model.get_output_embeddings())
    ]


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Keep back what a user could not act on.

    peft 0.21 warns of a property that transformers 5.23 renamed, and of ranks that it has itself
    set for experts.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        # merge_adapter unties them
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys did not match")
        yield


def _checkpoint_activations(model: Any) -> None:
    """Recompute activations in the backward pass, without a gradient at the input."""
    options = {"use_reentrant": False}
    enable = getattr(model, "activation_checkpointing_enable", None)  # new name since 5.2x
    if enable is None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    else:
        enable(options)


def _list_layers(model: Any) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}


def get_trainable_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return the trained parameters by name, in the order of the model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def merge_adapter(model: Any) -> Any:
    """Return the full model with the adapter merged in: the same logits, from plain weights.

    An output layer and an input embedding that share one matrix get one each where the adapter
    changes either: merged into the shared one, the update would change both.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model, PooledClassifier):
        model.body = merge_adapter(model.body)
        return model
    layers = [part.get_base_layer() for part in model.modules() if isinstance(part, BaseTunerLayer)]
    adapted = {layer.weight.data_ptr(): layer for layer in layers if getattr(layer, "weight", None) is not None}
    ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
    ends = [end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends]
    is_tied = len(ends) == 2 and ends[0].weight is ends[1].weight
    if is_tied and ends[0].weight.data_ptr() in adapted:
        ends[1].weight = torch.nn.Parameter(ends[1].weight.detach().clone(), requires_grad=False)
        for config in {id(each): each for each in (model.config, model.config.get_text_config())}.values():
            config.tie_word_embeddings = False
    return model.merge_and_unload()


def save_adapter(model: Any, folder: Path) -> None:
    """Write the peft folder, lists of its configuration sorted: equal runs give equal bytes."""
    if isinstance(model, PooledClassifier):
        save_adapter(model.body, folder)
        write_head(model, folder)
        return
    if not hasattr(model, "peft_config"):
        save_whole(model, folder)
        return
    with writing_safetensors(folder):
        model.save_pretrained(folder, save_embedding_layers=False)
    if has_start(model):
        save_with_start(model, folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_bytes())
    for name, value in config.items():
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            config[name] = sorted(value)
    write_atomic(path, json.dumps(config, indent=2, sort_keys=True).encode() + b"\n")
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty template
