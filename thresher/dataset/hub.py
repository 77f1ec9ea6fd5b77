"""Rows that the `datasets` package knows: Hub ids, saved folders, and objects in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson
import pyarrow as pa

from thresher.errors import InputError, MissingExtraError, NotFoundError, did_you_mean

if TYPE_CHECKING:
    import datasets
    from numpy.typing import NDArray

    from thresher.dataset.formats.shard import Shard
    from thresher.dataset.formats.table_shard import TableShard

_OFFLINE_HINT = (
    "check the name and the connection, or save it elsewhere with datasets' save_to_disk and give that folder"
)


def is_hub_id(source: str) -> bool:
    """Tell whether a text looks like "owner/name" and is no path here."""
    owner, _, name = source.partition("/")
    is_name = bool(owner and name) and not source.startswith((".", "~")) and not set(name) & set("/*?[")
    return (
        is_name and not os.path.exists(source) and not os.path.isdir(owner) and Path(name).suffix.lower() not in _FILES
    )


_TABLES = {".parquet", ".arrow", ".feather", ".xlsx"}
_FILES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".gz", ".zst", ".bz2", ".txt", *_TABLES}


def open_hub(name: str, *, config: str | None, split: str | None, max_row_bytes: int) -> TableShard:
    """Fetch a dataset of the Hub with the `datasets` package; its code is never run.

    Raises:
        MissingExtraError: `datasets` is not installed.
        InputError: it cannot be fetched, or the split or config must be named.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", f"the Hub dataset '{name}'", "hub") from None
    try:
        dataset = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:  # of network, name, config and split
        first_line = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"{name}: the Hub dataset must be reachable, got '{first_line}'; {_OFFLINE_HINT}") from None
    return open_dataset(dataset, split=split, max_row_bytes=max_row_bytes, name=f"hub:{name}")


def open_dataset(dataset: Any, *, split: str | None, max_row_bytes: int, name: str = "<datasets>") -> TableShard:
    """Return the rows of a `datasets.Dataset`, or of one split of a `DatasetDict`.

    Raises:
        InputError: the split must be named, or the dataset is a stream.
    """
    from thresher.dataset.formats.table_shard import wrap_table

    if isinstance(dataset, dict):
        dataset = dataset[choose_split(dataset, split, where=name)]
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "num_rows"):
        raise InputError(f"{name}: a datasets.Dataset is required, got a stream; materialize it with Dataset.from_list")
    table: pa.Table = dataset.with_format("arrow")[:]
    table = table.replace_schema_metadata(dataset.features.arrow_schema.metadata)
    return wrap_table(table, name, max_row_bytes=max_row_bytes)


class OwnRows(Protocol):
    """A Dataset, as far as this module reads it."""

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The files."""
        ...

    @property
    def decoded_columns(self) -> frozenset[str]:
        """Columns that are read by the name of a class."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def rows(self, indices: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return the user's own rows."""
        ...


def to_hub_dataset(rows: OwnRows, *, needed_by: str) -> datasets.Dataset:
    """Return rows as a `datasets.Dataset`, with the features that `datasets` gave them.

    Args:
        rows: of the user.
        needed_by: who wants it, for the message.

    Raises:
        MissingExtraError: `datasets` is not installed.
        InputError: a column holds values of several types, which such a dataset has no room for.
    """
    from thresher.dataset.formats.table_shard import TableShard

    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", needed_by, "hub") from None
    schemas = [shard.schema if isinstance(shard, TableShard) and not shard.as_text else None for shard in rows.shards]
    features = None
    if (
        schemas[0] is not None
        and schemas == schemas[:1] * len(schemas)
        and not rows.decoded_columns
        and b"huggingface" in (schemas[0].metadata or {})
    ):
        features = datasets.Features.from_arrow_schema(schemas[0])
    try:
        return datasets.Dataset.from_list(rows.rows(np.arange(len(rows))), features=features)
    except OverflowError:
        raise InputError(
            f"{needed_by}: whole numbers of at most 64 bits are required, found longer ones; write them as text, take "
            f".rows, or write the rows with save"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"{needed_by}: every column must hold values of one type, found others ({error}); take .rows, or write "
            f"them with save"
        ) from None


def choose_split(splits: Iterable[str], split: str | None, *, where: str) -> str:
    """Return the split to read: the named one, or the only one.

    Raises:
        InputError: there are several and none was named.
        NotFoundError: there is none of that name.
    """
    names = list(splits)
    if split is None:
        if len(names) != 1:
            raise InputError(
                f"{where}: one split is required, it has {', '.join(names)}; choose one with --split NAME (in "
                'Python split="NAME")'
            )
        return names[0]
    if split not in names:
        raise NotFoundError(
            f"{where}: split '{split}' not found; there are: {', '.join(names)}{did_you_mean(split, names)}"
        )
    return split


def is_saved(folder: Path) -> bool:
    """Tell whether a folder was written by `save_to_disk`."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def open_saved(folder: Path, *, split: str | None, max_row_bytes: int) -> list[TableShard]:
    """Return the shards of a folder that `save_to_disk` wrote; `datasets` itself is not needed.

    Raises:
        InputError: the split must be named, or the folder's state cannot be read.
    """
    from thresher.dataset.formats.table_shard import open_table

    try:
        if (folder / "dataset_dict.json").is_file():
            splits = orjson.loads((folder / "dataset_dict.json").read_bytes())["splits"]
            folder = folder / choose_split(splits, split, where=str(folder))
        state = orjson.loads((folder / "state.json").read_bytes())
        names = [entry["filename"] for entry in state["_data_files"]]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: the state of a saved dataset must be readable, got '{error}'; save it again"
        ) from None
    others = [name for name in names if not isinstance(name, str) or os.path.basename(name) != name]
    if others:
        raise InputError(
            f"{folder}: the state of a saved dataset must name files of its own folder, got {repr(others[0])[:80]}; "
            f"save it again"
        )
    return [open_table(folder / name, ".arrow", max_row_bytes=max_row_bytes) for name in names]
