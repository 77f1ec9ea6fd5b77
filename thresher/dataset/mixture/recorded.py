"""How rows in a folder of results are to be read, as its manifest says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import MANIFEST
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.fetch import localize
from thresher.dataset.provenance import schema_from_json
from thresher.dataset.settings import ReadSettings

ANY_LENGTH = 1 << 62  # bytes of a row: what we wrote, we read
# folders that hold rows in the columns of the pool
_KINDS = ("subset", "curated", "corrected", "grown", "snapshot")


def read_recorded(source: Any) -> ReadSettings:
    """Return how the rows of a folder of results were read: schema, id column, mark of wanted rows.

    Nothing is given where `source` is no such folder.
    """
    try:
        content = json.loads((expand_path(localize(source)) / MANIFEST).read_bytes())
        schema = schema_from_json(content["schema"]) if content["kind"] in _KINDS else None
        id_column = content.get("id_column")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ReadSettings()
    if schema is None:
        return ReadSettings()
    return ReadSettings(schema=schema, wanted=schema.wanted, id_column=id_column, max_row_bytes=ANY_LENGTH)


def adopt_recorded(source: Any, read: ReadSettings, *, with_id: bool = True) -> tuple[ReadSettings, frozenset[str]]:
    """Return the settings with what a folder of results says where nothing is given.

    Args:
        source: rows that a user named.
        read: what is given.
        with_id: name the rows by the id column of the folder.

    Returns:
        The settings, and the names of those that are the folder's: they count only where the rows
        still have these columns.
    """
    if not isinstance(source, str | Path):
        return read, frozenset()
    recorded = read_recorded(source)
    has_schema = read.schema is not None or read.columns is not None
    new: dict[str, Any] = {
        "schema": None if has_schema else recorded.schema,
        "wanted": recorded.wanted if read.wanted is None else None,
        "id_column": recorded.id_column if with_id and read.id_column is None else None,
        "max_row_bytes": recorded.max_row_bytes if read.max_row_bytes is None else None,
    }
    new = {name: value for name, value in new.items() if value is not None}
    return replace(read, **new), frozenset(new)
