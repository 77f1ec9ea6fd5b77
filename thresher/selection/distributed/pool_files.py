"""A pool as the files it is: what a user names, with the schema by which each file is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from thresher.dataset import Dataset, Schema, load
from thresher.dataset.dataset import SourceReading
from thresher.dataset.formats.files import SourceFile
from thresher.dataset.loading import MAX_ROW_BYTES, infer_reading, load_shard
from thresher.dataset.mixture.join import Reading, choose_common_schema, map_rows, reads_alike, refuse_repeated_files
from thresher.dataset.mixture.parsing import list_sources
from thresher.dataset.mixture.recorded import adopt_recorded
from thresher.dataset.mixture.source import Source
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.dataset.sources import detect_file_format, find_files
from thresher.errors import InputError
from thresher.validation import document_options, split_options

MAX_SHARDS = 99_999  # five digits, so that names sort as numbers


@dataclass(frozen=True, kw_only=True)
class PoolFiles:
    """Files of rows, one shard each; nothing but the first of them has been read.

    Attributes:
        names: of the files, as the user has them.
        paths: absolute, so that every process finds them.
        schema: of all rows.
        is_strict: whether rows that cannot be used are an error.
        max_row_bytes: longer rows are rejected.
        expected: fingerprint that the rows must have, None where it is not known.
        readings: how each source is read, of several side by side, in the order of their files.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    schema: Schema
    is_strict: bool = False
    max_row_bytes: int = MAX_ROW_BYTES
    expected: str | None = None
    readings: tuple[SourceReading, ...] = ()

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.paths)

    def read(self, number: int) -> Dataset:
        """Read one shard, with the name that the user has for it.

        Raises:
            InputError: the file cannot be read, or has rows of which none is usable.
        """
        own = self.find_schema(number)
        rows = load_shard(self.paths[number], own, max_row_bytes=self.max_row_bytes)
        if rows.n_read and not len(rows):
            reason, count = next(iter(rows.rejected_by_reason.items()))
            raise InputError(
                f"{self.names[number]}: rows of schema '{own.name}' are required, as in {self.names[0]}, found "
                f"none in {rows.n_read:,} rows ({count:,} x {reason}); leave the file out or fix it"
            )
        return self.rename_file(map_rows(rows, self.schema), number)

    def find_source(self, number: int) -> int:
        """Return which of several sources a file belongs to; 0 where there is one."""
        stops = np.cumsum([one.n_files for one in self.readings])
        return int(np.searchsorted(stops, number, side="right")) if self.readings else 0

    def find_schema(self, number: int) -> Schema:
        """Return the schema by which a file is read, before its columns are those of all."""
        return self.readings[self.find_source(number)].schema if self.readings else self.schema

    def rename_file(self, rows: Dataset, number: int) -> Dataset:
        """Return rows of a shard with the user's name for the file."""
        import polars as pl

        name = self.names[number]
        return replace(
            rows,
            frame=rows.frame.with_columns(pl.lit(name, rows.frame.schema["file"]).alias("file")),
            rejected=rows.rejected.with_columns(pl.lit(name).alias("file")),
        )

    def load(self) -> Dataset:
        """Load all rows into this process."""
        limit, id_column = self.max_row_bytes, self.schema.id_column
        if not self.readings:
            return load(
                list(self.names),
                schema=self.schema,
                id_column=id_column,
                wanted=self.schema.wanted,
                max_row_bytes=limit,
            )
        stops = np.cumsum([0, *(one.n_files for one in self.readings)]).tolist()
        sources = [
            Source(list(self.names[first:stop]), name=one.name, schema=one.schema, wanted=one.schema.wanted)
            for one, (first, stop) in zip(self.readings, pairwise(stops), strict=True)
        ]
        return load(sources, id_column=id_column, max_row_bytes=limit)

    def read_states(self) -> list[tuple[int, int, int]]:
        """Return bytes and times of change of each file and of its entry: they show any change.

        The second time is that of the system: a copy that keeps the first one, as of an archive,
        has another.

        Raises:
            InputError: a file is gone.
        """
        states = []
        for path in self.paths:
            try:
                status = os.stat(path)
            except OSError as error:
                raise InputError(f"{path}: the file must be readable, got '{error.strerror}'; check the path") from None
            states.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return states


@document_options(ReadSettings)
def shards(source: str | Path | Source | Sequence[str | Path | Source], **options: Unpack[ReadOptions]) -> PoolFiles:
    """Name the files of a pool for `select(engine="ray")`; only the first is read, for its schema.

    Args:
        source: a path, a glob, a list of paths, or a folder of shards, on storage that all nodes
            see; or several sources of such, as for `load`.
        **options: fields of `ReadSettings`.

    Raises:
        InputError: these are no files, or files of several formats, or a configuration was given,
            which only a Hub data set has.
    """
    (read,) = split_options("shards", options, ReadSettings)
    sources = list_sources(source)
    paths: list[Path] = []
    readings: list[SourceReading] = []
    used: list[Reading] = []
    limit = MAX_ROW_BYTES if read.max_row_bytes is None else read.max_row_bytes
    for one in sources:
        own = replace(read, **({"schema": None, "columns": None} if _has_schema(one) else {}))
        own, recorded = adopt_recorded(one.rows, replace(own, **one.settings), with_id=len(sources) == 1)
        limit = max(limit, own.max_row_bytes or limit)
        files = _find_shards(one, own)
        used.append(infer_reading(files, own, name=one.label, soft=recorded))
        paths += files
        names = tuple(used[-1].column_names)
        readings.append(
            SourceReading(
                name=one.label, schema=used[-1].schema, column_names=names, n_files=len(files), n_read=0, rejected={}
            )
        )
    refuse_repeated_files(paths)
    schema = choose_common_schema(used)
    is_mapped = any(not reads_alike(one.schema, schema) for one in used)
    _check_shards(paths, is_mapped=is_mapped)
    return PoolFiles(
        names=tuple(map(str, paths)),
        paths=tuple(os.path.abspath(path) for path in paths),
        schema=schema,
        is_strict=read.strict,
        max_row_bytes=limit,
        readings=tuple(readings) if len(sources) > 1 else (),
    )


def _has_schema(source: Source) -> bool:
    return source.schema is not None or source.columns is not None


def _find_shards(source: Source, read: ReadSettings) -> list[Path]:
    """Return the files of a source.

    Raises:
        InputError: these are no files, or a configuration was given.
    """
    if read.config is not None:
        raise InputError(
            f"config: is for a Hub data set, and engine ray reads files, got '{read.config}'; leave it out"
        )
    rows = source.rows
    paths = [rows] if isinstance(rows, str | Path) else list(rows) if isinstance(rows, Sequence) else []
    if not paths or not all(isinstance(path, str | Path) and str(path) != "-" for path in paths):
        raise InputError(
            f"engine ray: a pool must be files (a path, a glob, a folder), one shard each, got "
            f"{'standard input' if rows == '-' else type(rows).__name__}; write it to files that all nodes see"
        )
    return [file.path for file in find_files(rows, split=read.split)]


def find_pool_files(pool: Any) -> PoolFiles:
    """Return the files behind whatever a user gave to `select`.

    Raises:
        InputError: there are no files behind it.
    """
    if isinstance(pool, PoolFiles):
        return pool
    if not isinstance(pool, Dataset):
        return shards(pool)
    sources: list[SourceFile] = pool.sources
    nameless = [source.path for source in sources if source.mtime_ns is None]
    if nameless:
        raise InputError(f"engine ray: a pool must be files, one shard each, got {nameless[0]}; write it to files")
    names = tuple(source.path for source in sources)
    is_mapped = any(not reads_alike(one.schema, pool.schema) for one in pool.readings)
    _check_shards([Path(name) for name in names], is_mapped=is_mapped)
    return PoolFiles(
        names=names,
        paths=tuple(os.path.abspath(name) for name in names),
        schema=pool.schema,
        expected=pool.fingerprint,
        readings=pool.readings,
    )


def _check_shards(paths: Sequence[Path], *, is_mapped: bool) -> None:
    """Refuse files whose results could not lie side by side as one.

    Rows in columns that several sources share are written as JSON lines, whatever their files.

    Raises:
        InputError: they are of several formats, or too many for the numbers in file names.
    """
    files = [detect_file_format(path) for path in paths]
    kinds = sorted({file.suffix + file.compression for file in files})
    if len(kinds) > 1 and not is_mapped:
        raise InputError(
            f"engine ray: the files of a pool must be of one format, found {', '.join(kinds)}; convert them"
        )
    if len(files) > MAX_SHARDS:
        raise InputError(
            f"engine ray: a pool must be at most {MAX_SHARDS:,} files, got {len(files):,}; join some of them"
        )
