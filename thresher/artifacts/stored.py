"""Reading what was stored: only as it was written, and with one sentence where that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.json_text import parse_json
from thresher.artifacts.seal import check_file
from thresher.errors import ManifestError, is_temporary


def read_table(
    path: Path, *, columns: Sequence[str] | None = None, schema: Mapping[str, Any] | None = None
) -> pl.DataFrame:
    """Read a stored table (.parquet or .csv) that is what its manifest says.

    Args:
        path: of the table.
        columns: to read; None for all.
        schema: types of the columns of a .csv, where they are known.

    Raises:
        ManifestError: it is damaged.
    """
    check_file(path)
    with explain_unreadable(path):
        if path.suffix == ".csv":
            return pl.read_csv(path, columns=columns, schema_overrides=schema, infer_schema_length=None)
        return pl.read_parquet(path, columns=None if columns is None else list(columns))


def read_json(path: Path) -> Any:
    """Read a stored JSON file that is what its manifest says.

    Raises:
        ManifestError: it is damaged.
    """
    check_file(path)
    with explain_unreadable(path):
        return json.loads(path.read_bytes())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a stored file of JSON lines that is what its manifest says.

    Raises:
        ManifestError: it is damaged.
    """
    check_file(path)
    with explain_unreadable(path):
        return [parse_json(line) for line in path.read_bytes().splitlines() if line.strip()]


@contextmanager
def explain_unreadable(path: Path) -> Iterator[None]:
    """Turn what parsers raise on a damaged file into one sentence, polars' panics included.

    Raises:
        ManifestError: it cannot be read.
        OSError: the storage is away for a time.
    """
    try:
        yield
    except (OSError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if is_temporary(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        first = (reason.strip().splitlines() or [type(error).__name__])[0]
        raise ManifestError(f"{path}: must be readable, found '{first[:200]}'; write it again") from None
