"""The result, one file of each kind per shard: kept, dropped and rejected rows, and scores."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from thresher.artifacts.disk_errors import delete_folder
from thresher.artifacts.folder import atomic_file, write_ndjson, write_parquet
from thresher.dataset.rejection import count_values
from thresher.numeric.arrays import Int64
from thresher.selection.distributed.sharded_pool import ShardedPool, ShardReader
from thresher.selection.distributed.stage import FILES, Record, shard_name
from thresher.subset.budget import Budget
from thresher.subset.cut import build_dropped_table
from thresher.subset.subset import score_table

RECORDS = ".shards"  # in the output folder while it is being written


class Verdicts(Protocol):
    """Returns the verdicts on a shard's rows, as `build_verdict_table`. Sent to other processes."""

    def __call__(self, number: int) -> pl.DataFrame:
        """Return the (n,) verdicts of a shard, in the order of its rows."""


@dataclass(frozen=True, kw_only=True)
class WrittenVerdicts:
    """Verdicts that the driver wrote, one file per shard."""

    folder: Path

    def __call__(self, number: int) -> pl.DataFrame:
        """Return the verdicts of a shard."""
        return pl.read_parquet(_verdicts_path(self.folder, number))


def _verdicts_path(folder: Path, number: int) -> Path:
    return folder / f"{shard_name(number)}.parquet"


def write_verdicts(folder: Path, pool: ShardedPool, verdicts: pl.DataFrame) -> WrittenVerdicts:
    """Write the verdicts of all rows, in the order of the files, one file per shard."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pool.n_shards):
        with atomic_file(_verdicts_path(folder, number)) as path:
            write_parquet(verdicts[pool.shard(number)], path)
    return WrittenVerdicts(folder=folder)


@dataclass(frozen=True, kw_only=True)
class WriteShard:
    """Writes what became of a shard into the output folder.

    Attributes:
        reader: of the pool's shards.
        verdicts: what became of their rows.
        out: the folder.
        key: of what is written; other results do not go on with these records.
        first: (n_shards,) position in the subset of the first kept row of each shard.
        n_kept: rows of the whole pool that are kept.
        budget: that they are kept for.
    """

    reader: ShardReader
    verdicts: Verdicts
    out: Path
    key: str
    first: tuple[int, ...]
    n_kept: int
    budget: Budget
    name: str = "write"
    memory_bytes: int = 0

    @property
    def folder(self) -> Path:
        """Where its records lie until the folder is published."""
        return self.out / f"{RECORDS}-{self.key}"

    def __call__(self, number: int) -> Record:
        """Write the files of a shard."""
        rows = self.reader.rows(number)
        verdicts = self.verdicts(number)
        stem = shard_name(number)
        is_kept = verdicts["reason"].is_null().to_numpy()
        kept = np.flatnonzero(is_kept)
        written: list[Path] = []
        if len(kept):
            work = self.out / f".{stem}.{uuid.uuid4().hex}"
            work.mkdir()
            try:
                path = rows.write(kept, work, f"subset-{stem}")
                path.replace(self.out / path.name)
            finally:
                delete_folder(work)
            written.append(self.out / path.name)
        position = np.full(len(rows), -1, np.int64)
        position[kept] = self.first[number] + np.arange(len(kept))
        dropped = build_dropped_table(rows.frame, verdicts, self.n_kept, self.budget)
        scores = score_table(rows.frame["row_id"], verdicts["value"], verdicts["rank"], position)
        for kind, table in (("dropped", dropped), ("scores", scores)):
            written.append(self.out / f"{kind}-{stem}.parquet")
            with atomic_file(written[-1]) as path:
                write_parquet(table, path)
        if len(rows.rejected):
            written.append(self.out / f"rejected-{stem}.jsonl")
            with atomic_file(written[-1]) as path:
                write_ndjson(rows.rejected, path)
        return {
            FILES: written,
            "rows": len(rows),
            "kept": len(kept),
            "dropped": count_values(verdicts["reason"].drop_nulls()),
            "excluded": count_values(verdicts.filter(pl.col("reason") == "excluded")["excluded"]),
        }


def find_first_positions(pool: ShardedPool, kept: Int64) -> tuple[int, ...]:
    """Return the position in the subset of the first kept row of each shard.

    Args:
        pool: its shards.
        kept: (k,) positions in the pool.
    """
    return tuple(np.searchsorted(np.sort(kept), pool.start[:-1]).tolist())


def delete_records(out: Path) -> None:
    """Delete records, and what killed writers left."""
    for path in out.iterdir():
        if path.name.startswith(".") and path.is_dir():
            delete_folder(path)
        elif path.name.startswith("."):
            path.unlink()


def sum_counts(records: Iterable[Record], key: str) -> dict[str, int]:
    """Return the counts of all shards together, the most frequent first."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(record[key])
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
