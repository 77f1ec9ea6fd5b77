"""Reading the files of an output folder, with one sentence where one is missing or not what it should be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from thresher.errors import ManifestError


def read_table(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Return a table (.csv or .parquet) that has at least these columns.

    Raises:
        ManifestError: the file is missing, cannot be read, or lacks a column.
    """
    _require(path)
    try:
        table = pl.read_csv(path, infer_schema_length=None) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ManifestError(f"{path}: must be a table, found '{first}'; make the folder again") from None
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        raise ManifestError(
            f"{path}: must have the columns {', '.join(columns)}, found no {', '.join(lacking)}; make the folder again"
        )
    return table


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return a JSON object that has at least these keys.

    Raises:
        ManifestError: the file is missing, is no JSON object, or lacks a key.
    """
    _require(path)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ManifestError(f"{path}: must be JSON, found {error}; make the folder again") from None
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking:
        raise ManifestError(
            f"{path}: must have {', '.join(keys)}, found no {', '.join(lacking)}; make the folder again"
        )
    found: dict[str, Any] = content
    return found


def _require(path: Path) -> None:
    if not path.is_file():
        raise ManifestError(f"{path.parent}: a folder of this kind has {path.name}, found none; make the folder again")
