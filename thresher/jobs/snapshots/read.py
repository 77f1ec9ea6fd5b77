"""Reading a snapshot: its rows, its JSON files and its schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from thresher.dataset import Dataset, load
from thresher.dataset.formats.shard import Shard
from thresher.dataset.mixture.recorded import ANY_LENGTH
from thresher.dataset.provenance import schema_from_json
from thresher.errors import ManifestError
from thresher.jobs.snapshots.folder import Snapshot
from thresher.jobs.snapshots.table import ROW_ID, WEIGHT

DATA = "data"
SOURCES, DISTRIBUTIONS, CHANGES = "sources.json", "profile.json", "changes.json"
TOPICS, DROPPED = "topics.npy", "dropped.parquet"


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The rows of a snapshot.

    Attributes:
        rows: n rows, named by `thresher_row_id`.
        table: the same as a table.
        weight: (n,) how many rows each stands for.
    """

    rows: Dataset
    table: pa.Table
    weight: NDArray[np.int64]

    def take(self, at: NDArray[np.int64]) -> Pool:
        """Return some of the rows."""
        return Pool(rows=self.rows.take(at), table=self.table.take(pa.array(at)), weight=self.weight[at])


def read_pool(snapshot: Snapshot) -> Pool | None:
    """Return the rows of a snapshot, or None when it has none.

    Raises:
        ManifestError: a file of it is not what was written.
    """
    content = snapshot.manifest.content
    entries: Sequence[Mapping[str, Any]] = content["files"]
    paths = [snapshot.path / DATA / entry["name"] for entry in entries]
    if not content["counts"]["rows"]:
        return None
    for path, entry in zip(paths, entries, strict=True):  # before a parser sees them
        if _hash_file(path) != entry["sha256"]:
            raise ManifestError(
                f"{path}: must be unchanged, but its sha256 differs; point 'latest' to an older one, "
                "or delete this one and evaluate everything again with --full"
            )
    schema = schema_from_json(content["schema"])
    rows = load([str(path) for path in paths], schema=schema, id_column=ROW_ID, max_row_bytes=ANY_LENGTH)
    if len(rows) != content["counts"]["rows"]:
        raise ManifestError(f"{snapshot.path}: must have {content['counts']['rows']} rows, found {len(rows)}")
    table = pa.concat_tables([pa.parquet.read_table(path, partitioning=None) for path in paths])
    return Pool(rows=rows, table=table, weight=table[WEIGHT].to_numpy().astype(np.int64))


def read_json(snapshot: Snapshot, name: str) -> Any:
    """Return a JSON file of a snapshot.

    Raises:
        ManifestError: it is gone or damaged.
    """
    content = read_bytes(snapshot, name)
    return json.loads(content)


def read_bytes(snapshot: Snapshot, name: str) -> bytes:
    """Return a file of a snapshot, which must be as it was written.

    Raises:
        ManifestError: it is gone or damaged.
    """
    path: Path = snapshot.path / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"{path}: a file of the snapshot must be readable, got '{error.strerror}'; point 'latest' to an older one"
        ) from None
    if hashlib.sha256(content).hexdigest() != snapshot.manifest.content["hashes"][name]:
        raise ManifestError(f"{path}: must be unchanged, but its sha256 differs; point 'latest' to another snapshot")
    return content


def _hash_file(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(
            f"{path}: a file of the snapshot must be readable, got '{error.strerror}'; point 'latest' to an older one"
        ) from None


def name_classes(pool: Pool, shards: Sequence[Shard]) -> Pool:
    """Return the rows of a snapshot with names of classes where it holds their numbers.

    Snapshots of earlier versions kept the numbers. The files that are read now name them, where
    they agree; else the numbers stay.

    Args:
        pool: rows of a snapshot.
        shards: files that are read now.
    """
    table, label_names = pool.table, [shard.label_names for shard in shards]
    for column in {name for one in label_names for name in one if name in table.column_names}:
        names = {one[column] for one in label_names if column in one}
        values = table[column]
        if not pa.types.is_integer(values.type) or len(names) != 1:
            continue
        classes, numbers = next(iter(names)), values.to_pylist()
        if all(number is None or 0 <= number < len(classes) for number in numbers):
            decoded = pa.array([None if number is None else classes[number] for number in numbers], pa.string())
            table = table.set_column(table.column_names.index(column), column, decoded)
    if table is pool.table:
        return pool
    rows = load(table, schema=pool.rows.schema, id_column=ROW_ID, max_row_bytes=ANY_LENGTH)
    return Pool(rows=rows, table=table, weight=pool.weight)
