"""A pool as the files it is: what a user names, with the schema by which each file is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from thresher.dataset import Dataset, Schema, load
from thresher.dataset.formats.files import SourceFile
from thresher.dataset.loading import MAX_ROW_BYTES, infer_schema, load_shard, read_wanted
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.dataset.sources import FileToRead, detect_file_format, find_files
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
        max_row_bytes: longer rows of a text file are rejected.
        expected: fingerprint that the rows must have, None where it is not known.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    schema: Schema
    is_strict: bool = False
    max_row_bytes: int = MAX_ROW_BYTES
    expected: str | None = None

    def __len__(self) -> int:
        """Return the number of shards."""
        return len(self.paths)

    def read(self, number: int) -> Dataset:
        """Read one shard, with the name that the user has for it.

        Raises:
            InputError: the file cannot be read, or has rows of which none is usable.
        """
        rows = load_shard(self.paths[number], self.schema, max_row_bytes=self.max_row_bytes)
        if rows.n_read and not len(rows):
            reason, count = next(iter(rows.rejected_by_reason.items()))
            raise InputError(
                f"{self.names[number]}: rows of schema '{self.schema.name}' are required, as in {self.names[0]}, found "
                f"none in {rows.n_read:,} rows ({count:,} x {reason}); leave the file out or fix it"
            )
        return self.rename_file(rows, number)

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
        return load(
            list(self.names),
            schema=self.schema,
            id_column=self.schema.id_column,
            wanted=self.schema.wanted,
            max_row_bytes=self.max_row_bytes,
        )

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
def shards(source: str | Path | Sequence[str | Path], **options: Unpack[ReadOptions]) -> PoolFiles:
    """Name the files of a pool for `select(engine="ray")`; only the first is read, for its schema.

    Args:
        source: a path, a glob, a list of paths, or a folder of shards, on storage that all nodes
            see.
        **options: fields of `ReadSettings`.

    Raises:
        InputError: these are no files, or files of several formats, or a configuration was given,
            which only a Hub data set has.
    """
    (read,) = split_options("shards", options, ReadSettings)
    if read.config is not None:
        raise InputError(
            f"config: is for a Hub data set, and engine ray reads files, got '{read.config}'; leave it out"
        )
    paths = [source] if isinstance(source, str | Path) else list(source) if isinstance(source, Sequence) else []
    if not paths or not all(isinstance(path, str | Path) and str(path) != "-" for path in paths):
        raise InputError(
            f"engine ray: a pool must be files (a path, a glob, a folder), one shard each, got "
            f"{'standard input' if source == '-' else type(source).__name__}; write it to files that all nodes see"
        )
    files = find_files(source, split=read.split)
    _check_shards(files)
    names = tuple(str(file.path) for file in files)
    limit = MAX_ROW_BYTES if read.max_row_bytes is None else read.max_row_bytes
    schema = infer_schema(
        [file.path for file in files],
        schema=read.schema,
        columns=read.columns,
        id_column=read.id_column,
        wanted=read.wanted if read.wanted is not None else read_wanted(source),
        max_row_bytes=limit,
    )
    return PoolFiles(
        names=names,
        paths=tuple(os.path.abspath(name) for name in names),
        schema=schema,
        is_strict=read.strict,
        max_row_bytes=limit,
    )


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
    _check_shards([detect_file_format(Path(name)) for name in names])
    return PoolFiles(
        names=names,
        paths=tuple(os.path.abspath(name) for name in names),
        schema=pool.schema,
        expected=pool.fingerprint,
    )


def _check_shards(files: Sequence[FileToRead]) -> None:
    """Refuse files whose results could not lie side by side as one.

    Raises:
        InputError: they are of several formats, or too many for the numbers in file names.
    """
    kinds = sorted({file.suffix + file.compression for file in files})
    if len(kinds) > 1:
        raise InputError(
            f"engine ray: the files of a pool must be of one format, found {', '.join(kinds)}; convert them"
        )
    if len(files) > MAX_SHARDS:
        raise InputError(
            f"engine ray: a pool must be at most {MAX_SHARDS:,} files, got {len(files):,}; join some of them"
        )
