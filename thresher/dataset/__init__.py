"""Dataset: the user's rows in one canonical shape, and where each of them stands in the user's file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.dataset.conversation import Conversation
    from thresher.dataset.dataset import Dataset
    from thresher.dataset.formats.files import SourceFile
    from thresher.dataset.loading import ensure_dataset, load
    from thresher.dataset.schema import Schema

__all__ = ["Conversation", "Dataset", "Schema", "SourceFile", "ensure_dataset", "load"]

_HOME = {
    "Conversation": "conversation",
    "Dataset": "dataset",
    "Schema": "schema",
    "SourceFile": "formats.files",
    "ensure_dataset": "loading",
    "load": "loading",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: the command line reads `settings` alone."""
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
