"""Dataset: the user's rows in one canonical shape, and where each of them stands in the user's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.lazy import export_lazily

if TYPE_CHECKING:
    from thresher.dataset.conversation import Conversation
    from thresher.dataset.dataset import Dataset
    from thresher.dataset.formats.files import SourceFile
    from thresher.dataset.loading import ensure_dataset, load
    from thresher.dataset.schema import Schema

__all__ = ["Conversation", "Dataset", "Schema", "SourceFile", "ensure_dataset", "load"]

__getattr__ = export_lazily(
    __name__,
    {
        "Conversation": "conversation",
        "Dataset": "dataset",
        "Schema": "schema",
        "SourceFile": "formats.files",
        "ensure_dataset": "loading",
        "load": "loading",
    },
)
