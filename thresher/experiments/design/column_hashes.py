"""Columns that decide a result besides the rows: groups, sources, slices and quotas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from thresher.dataset import Dataset
from thresher.experiments.rankings import MethodName
from thresher.experiments.settings import MethodSettings
from thresher.selectors import Selector
from thresher.subset.quota import parse_quota

PREFIX = "column:"  # of the features that are a column


def hash_columns(rows: Dataset, names: Iterable[str]) -> dict[str, str]:
    """Return a hash of the values of each column, whatever the order of the rows.

    Args:
        rows: that have the columns.
        names: of columns; "source" is the file of a row where there is no such column, and "label"
            that of a classifier.

    Raises:
        NotFoundError: there is no such column.
    """
    return {name: _hash_column(rows, name) for name in sorted(set(names))}


def _hash_column(rows: Dataset, name: str) -> str:
    if name == "label" and rows.kind == "classification":
        values = rows.frame["response"]
    elif name == "source" and name not in rows.column_names:
        values = _name_files(rows.frame["file"])
    else:
        values = rows.column(name)
    pairs = sorted(zip(rows.frame["row_id"], map(repr, values.to_list()), strict=True))
    return hashlib.sha256(repr(pairs).encode()).hexdigest()


def _name_files(files: pl.Series) -> pl.Series:
    """Return files by place and name, so that another folder is no other result."""
    names = {file: f"{place} {Path(file).name}" for place, file in enumerate(sorted(set(files)))}
    return pl.Series([names[file] for file in files], dtype=pl.String)


def list_method_columns(
    methods: Iterable[str], settings: MethodSettings, selectors: Mapping[str, Selector]
) -> set[str]:
    """Return the columns of the pool that methods or their quotas group rows by.

    Args:
        methods: as people name them.
        settings: by method.
        selectors: methods that were given as selectors, by name.
    """
    columns: set[str] = set()
    for method in methods:
        name = None if method in selectors else MethodName.parse(method)
        selector = selectors[method] if name is None else name.build(settings)
        needs = selector.requirements.features
        columns |= {need.removeprefix(PREFIX) for need in needs if need.startswith(PREFIX)}
        if name is not None and name.quota is not None:
            columns.add(parse_quota(name.quota).column)
    return columns
