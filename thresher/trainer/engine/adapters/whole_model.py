"""Training all weights: no adapter, and the result is a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thresher.artifacts.disk_errors import writing_safetensors
from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.models.causal_lm.base_model import QuietLoading
from thresher.trainer.engine.load_model import POOLERS
from thresher.trainer.engine.pooled_classifier import PooledClassifier


def train_whole(model: Any) -> Any:
    """Return a model all of whose weights are trained, in float32; what nothing reads stays.

    Args:
        model: of transformers, or a pooled classifier: of that, a pooler is not read.
    """
    is_pooled = isinstance(model, PooledClassifier)
    for name, parameter in model.named_parameters():
        is_read = not (is_pooled and set(POOLERS) & set(name.split(".")))
        parameter.requires_grad_(is_read)
        if is_read:
            parameter.data = parameter.data.float()
    model.config.use_cache = False
    return model


def is_whole_model(folder: Path) -> bool:
    """Tell whether a folder holds a model whose weights were all trained."""
    return not (folder / ADAPTER_CONFIG).is_file()


def save_whole(model: Any, folder: Path) -> None:
    """Write the weights as an ordinary model of transformers, with the cache turned on again."""
    model.config.use_cache = True
    with writing_safetensors(folder), QuietLoading():
        model.save_pretrained(folder)
    model.config.use_cache = False
