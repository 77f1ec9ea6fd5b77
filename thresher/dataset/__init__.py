"""Dataset: the user's rows in one canonical shape, and where each of them is in the user's file.

`loading.py` turns anything that holds rows into a `Dataset`; `schema.py` says which columns are
read, `canonical.py` and `conversation.py` what a row means, `rejection.py` why it cannot be used;
`opening/` finds the rows, `formats/` knows the files, `mixture/` joins several sources. Imports
`artifacts` and `numeric`; every package above may import it.
A new schema goes into `schema.py`, a new kind of file into `formats/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.lazy import export_lazily

if TYPE_CHECKING:
    from thresher.dataset.conversation import Conversation
    from thresher.dataset.dataset import Dataset
    from thresher.dataset.formats.files import SourceFile
    from thresher.dataset.loading import ensure_dataset, load
    from thresher.dataset.mixture.source import Source
    from thresher.dataset.schema import Schema

__all__ = ["Conversation", "Dataset", "Schema", "Source", "SourceFile", "ensure_dataset", "load"]

__getattr__ = export_lazily(
    __name__,
    {
        "Conversation": "conversation",
        "Dataset": "dataset",
        "Schema": "schema",
        "Source": "mixture.source",
        "SourceFile": "formats.files",
        "ensure_dataset": "loading",
        "load": "loading",
    },
)
