"""Where rows come from, as manifests and identities say it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.places import IN, find_address, find_place, show_place
from thresher.artifacts.remote.result import stage
from thresher.dataset.dataset import Dataset
from thresher.dataset.schema import Schema
from thresher.errors import OutputError


def describe_schema(rows: Dataset) -> dict[str, Any]:
    """Return the schema in JSON values; of several sources also that of each."""
    own = [{"n_files": one.n_files, **schema_to_json(one.schema)} for one in rows.readings]
    return {**schema_to_json(rows.schema), **({"sources": own} if own else {})}


def schema_to_json(schema: Schema) -> dict[str, Any]:
    """Return a schema in JSON values, without what its rows say of types."""
    wanted = {} if schema.wanted is None else {"wanted": schema.wanted}
    return {
        "name": schema.name,
        "kind": schema.kind,
        "columns": {role: list(names) for role, names in schema.columns.items()},
        **wanted,
    }


def schema_from_json(entry: Mapping[str, Any]) -> Schema:
    """Return the schema of JSON values."""
    columns = {role: tuple(names) for role, names in entry["columns"].items()}
    return Schema(name=entry["name"], kind=entry["kind"], columns=columns, wanted=entry.get("wanted"))


def describe_columns(rows: Dataset) -> dict[str, Any]:
    """Return how the columns were read, for manifests and people.

    `kind` and `schema`, `columns`: role -> those that were read, `not_read`: the others, the same
    in a line, `summary`, and `notes`, where there are any; of several sources also `sources`, the
    line of each.
    """
    own = [one.schema.describe(one.column_names) for one in rows.readings]
    read, others = rows.schema.split_columns(rows.column_names)
    return {
        "kind": rows.kind,
        "schema": rows.schema.name,
        "columns": read,
        "not_read": others,
        "summary": rows.schema.describe(rows.column_names),
        **({"sources": own} if own else {}),
        **({"notes": list(rows.notes)} if rows.notes else {}),
    }


def describe_sides(sides: Mapping[str, Dataset | None]) -> dict[str, Any]:
    """Return the section `reading` of a manifest: how the columns of each side were read."""
    return {name: describe_columns(rows) for name, rows in sides.items() if rows is not None}


def describe_sources(rows: Dataset) -> list[dict[str, Any]]:
    """Return name, size and hash of each file, independent of its folder."""
    return [{"name": source.name, "bytes": source.bytes, "sha256": source.sha256} for source in rows.sources]


def list_source_paths(rows: Dataset) -> list[str]:
    """Return absolute path or address of each file; names such as "<stdin>" stay."""
    return [
        source.path if source.mtime_ns is None else show_place(os.path.abspath(source.path)) for source in rows.sources
    ]


def describe_rows(
    rows: Dataset, counts: Mapping[str, Any], *, others: Mapping[str, Dataset | None] | None = None
) -> dict[str, Any]:
    """Return the part of a manifest that says which rows went in, and how many of them became what.

    Args:
        rows: the pool.
        counts: what became of the usable rows; it follows the counts of the reading.
        others: rows beside the pool, by role.
    """
    return {
        "inputs": describe_sources(rows),
        "schema": describe_schema(rows),
        "reading": describe_sides({"pool": rows, **(others or {})}),
        "id_column": rows.id_column,
        "counts": {
            "read": rows.n_read,
            "rejected": rows.n_rejected,
            "rejected_by_reason": rows.rejected_by_reason,
            "usable": len(rows),
            **counts,
        },
        **({"reading_notes": list(rows.notes)} if rows.notes else {}),
    }


def describe_run(rows: Dataset, **details: Any) -> dict[str, Any]:
    """Return the section `run` of a manifest: what may differ between two runs of the same work."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"created": created, **details, "inputs": list_source_paths(rows)}


def describe_reading(rows: Dataset) -> list[Any]:
    """Return how the rows were read, for identities: ids of a column say nothing of the texts."""
    return [describe_schema(rows), rows.id_column, [[source.bytes, source.sha256] for source in rows.sources]]


def refuse_input_as_output(out: Path, inputs: Iterable[Dataset]) -> None:
    """Refuse to replace a folder that rows are read from.

    Raises:
        OutputError: a file of the rows lies in the folder.
    """
    address = find_address(stage(out))
    folder = os.path.realpath(expand_path(out) if address is None else find_place(address, IN))
    for source in (source for rows in inputs for source in rows.sources):
        if source.mtime_ns is not None and Path(os.path.realpath(source.path)).is_relative_to(folder):
            raise OutputError(
                f"{out}: the output must not replace its own input, it holds {source.name}; choose another --out"
            )
