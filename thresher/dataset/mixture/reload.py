"""Rows as a manifest tells of them: read again, each source by its own schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.seal import check_file
from thresher.dataset.dataset import Dataset
from thresher.dataset.mixture.recorded import ANY_LENGTH
from thresher.dataset.mixture.source import Source
from thresher.dataset.provenance import schema_from_json
from thresher.dataset.sources import find_subset_files


def list_recorded_sources(paths: Sequence[str | Path], schema: Mapping[str, Any] | None) -> list[Source]:
    """Return the sources of a pool, from the paths of its files and the `schema` of a manifest.

    A single source without a schema of its own is all of the files.
    """
    sources: list[Source] = []
    first = 0
    for entry in (schema or {}).get("sources", ()):
        own, stop = schema_from_json(entry), first + entry["n_files"]
        sources.append(Source([Path(path) for path in paths[first:stop]], schema=own, wanted=own.wanted))
        first = stop
    return sources or [Source([Path(path) for path in paths])]


def load_recorded(
    paths: Sequence[str | Path], schema: Mapping[str, Any] | None, *, id_column: str | None = None
) -> Dataset:
    """Load the rows that a manifest names, and those that were rejected for their length.

    Args:
        paths: of the files, in order.
        schema: of the manifest, with `sources` where it was several; None to recognize it.
        id_column: of the manifest.

    Raises:
        InputError: the rows cannot be read.
    """
    from thresher.dataset.loading import load

    sources = list_recorded_sources(paths, schema)
    if len(sources) == 1 and schema is not None:
        own = schema_from_json(schema)
        rows = sources[0].rows
        return load(rows, schema=own, id_column=id_column, wanted=own.wanted, max_row_bytes=ANY_LENGTH)
    return load(sources, id_column=id_column, max_row_bytes=ANY_LENGTH)


def load_kept_rows(folder: Path, content: Mapping[str, Any]) -> Dataset:
    """Load the rows in a folder of results alone, without the pool that they are from.

    Args:
        folder: that `select`, `curate` or `correct` wrote.
        content: of its manifest.

    Raises:
        ManifestError: a file is missing or damaged.
        InputError: the rows cannot be read.
    """
    from thresher.dataset.loading import load

    files = find_subset_files(folder)
    for path in files:
        check_file(path)
    # A longer row is among these where the pool was read with a larger limit.
    schema, limit = schema_from_json(content["schema"]), ANY_LENGTH
    return load(files, schema=schema, id_column=content["id_column"], wanted=schema.wanted, max_row_bytes=limit)


def format_source(path: str, schema: Mapping[str, Any]) -> str:
    """Return a source as the command line takes it: "b.csv:prompt=question,response=answer"."""
    pairs = {"schema": schema["name"]}
    if schema["name"] == "mapped":
        pairs = {role: "+".join(names) for role, names in schema["columns"].items()}
    if schema.get("wanted"):
        pairs["wanted"] = schema["wanted"]
    return f"{path}:" + ",".join(f"{key}={value}" for key, value in pairs.items())
