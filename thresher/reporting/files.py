"""Reading the files of an output folder, with one sentence where a file is missing or damaged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts import stored
from thresher.errors import ManifestError

REMEDY = "write the folder again"


def read_table(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Return a table (.csv or .parquet) that has at least these columns.

    Raises:
        ManifestError: the file is missing, cannot be read, or lacks a column.
    """
    _require(path)
    table = stored.read_table(path)
    _check_names(path, columns, table.columns, "the columns ")
    return table


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return a JSON object that has at least these keys.

    Raises:
        ManifestError: the file is missing, is not a JSON object, or lacks a key.
    """
    _require(path)
    content: dict[str, Any] = stored.read_json(path)
    _check_names(path, keys, content if isinstance(content, dict) else ())
    return content


def _check_names(path: Path, names: Sequence[str], present: Collection[str], what: str = "") -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise ManifestError(f"{path}: must have {what}{', '.join(names)}, found no {', '.join(missing)}; {REMEDY}")


def _require(path: Path) -> None:
    if not path.is_file():
        raise ManifestError(f"{path.parent}: a folder of this kind has {path.name}, found none; {REMEDY}")
