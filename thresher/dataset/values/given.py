"""What people bring: vectors and class probabilities of their own, row by row."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xxhash

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.fetch import localize
from thresher.dataset.dataset import Dataset
from thresher.errors import InputError, first_three
from thresher.numeric.arrays import Array, Int64

EMBEDDING, PROBABILITY = "embedding", "class_probability"
CLASS = "class"  # column of the probabilities that each row's own label has
ROW_ID = "row_id"
FILES = (".npy", ".parquet")
SUM_TOLERANCE = 1e-2  # of probabilities, which may have been rounded


def attach_embeddings(rows: Dataset, source: Any) -> Dataset:
    """Return rows whose feature `embedding` is the user's own, in place of an encoder's.

    Args:
        rows: of n usable rows.
        source: (n, d) numbers in the order of the rows; or a frame with `row_id`, the name of a
            column of lists, or a .npy or Parquet file.

    Raises:
        InputError: the vectors do not fit the rows.
    """
    vectors = _read_matrix(rows, source, "embeddings")
    _check_finite(vectors, "embeddings")
    return _attach(rows, EMBEDDING, np.ascontiguousarray(vectors, dtype=np.float32))


def attach_probabilities(rows: Dataset, source: Any) -> Dataset:
    """Return rows whose feature `class_probability` is the user's own.

    Args:
        rows: of n usable rows with k labels.
        source: (n, k) probabilities, as for `attach_embeddings`; a frame or a Parquet file may have
            a column for each label.

    Raises:
        InputError: the rows have no labels, or the probabilities do not fit them.
    """
    if rows.kind != "classification":
        raise InputError(f"pred_probs: rows need a text and a label, found rows of kind '{rows.kind}'; leave it out")
    names = sorted(rows.frame["response"].unique().to_list())
    values = _read_matrix(rows, source, "pred_probs", names)
    _check_finite(values, "pred_probs")
    if values.shape[1] != len(names):
        raise InputError(
            f"pred_probs: must have a number for each of the {len(names)} labels of the rows in sorted order "
            f"({first_three(names)}), got {values.shape[1]} per row"
        )
    total = values.sum(axis=1, dtype=np.float64)
    is_wrong = (values < 0).any(axis=1) | (np.abs(total - 1) > SUM_TOLERANCE)
    if is_wrong.any():
        row = int(np.flatnonzero(is_wrong)[0])
        raise InputError(
            f"pred_probs: must be probabilities, at least 0 and with the sum 1 in each row, got the sum "
            f"{total[row]:.4g} and the least {values[row].min():.4g} in row {row} ({is_wrong.sum():,} in all)"
        )
    rows = _attach(rows, PROBABILITY, (values / total[:, None]).astype(np.float32))
    return _attach(rows, CLASS, np.searchsorted(np.array(names), rows.frame["response"].to_numpy()).astype(np.int64))


def hash_given(rows: Dataset) -> dict[str, str]:
    """Return a hash of each feature that the user gave, whatever the order of the rows."""
    order = rows.frame[ROW_ID].arg_sort().to_numpy() if rows.given else np.zeros(0, np.int64)
    return {name: xxhash.xxh3_128(values[order].tobytes()).hexdigest() for name, values in rows.given.items()}


def has_ids(source: Any) -> bool:
    """Tell whether the vectors say which rows they are of."""
    if isinstance(source, pl.DataFrame):
        return ROW_ID in source.columns
    is_table = isinstance(source, str | Path) and str(source).endswith(".parquet")
    return is_table and ROW_ID in pl.read_parquet_schema(expand_path(localize(source)))


def _attach(rows: Dataset, name: str, values: Array) -> Dataset:
    values.setflags(write=False)
    return replace(rows, given={**rows.given, name: values})


def _read_matrix(rows: Dataset, source: Any, what: str, names: Sequence[str] = ()) -> Array:
    """Return (n, m) numbers in the order of the rows.

    Args:
        rows: n usable rows.
        source: what the user gave.
        what: name of the option.
        names: of the columns of a table with one column per number.
    """
    place = what
    if isinstance(source, str | Path):
        name = str(source)
        if name in rows.column_names:
            return _stack_lists(rows.column(name), f"{what}: column '{name}'")
        source, place = _read_file(rows, name, what), f"{what}: {name}"
    if _is_pandas(source):  # as an array it would lose the names of its columns
        source = pl.DataFrame({str(name): source[name].to_numpy() for name in source.columns})
    if isinstance(source, pl.DataFrame):
        source = _read_frame(rows, source, place, names)
    matrix = _as_numbers(source, place)
    return _match_rows(rows, matrix, place)


def _is_pandas(source: Any) -> bool:
    """Tell whether it is a pandas table, without importing pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(source, pandas.DataFrame)


def _read_file(rows: Dataset, name: str, what: str) -> Any:
    path = expand_path(localize(name))
    if path.suffix not in FILES:
        raise InputError(
            f"{what}: must be a column of the rows ({first_three(rows.column_names)}) or a file that ends in "
            f"{' or '.join(FILES)}, got '{name}'"
        )
    if not path.is_file():
        raise InputError(f"{what}: the file '{name}' does not exist; check the path")
    try:
        return np.load(path, allow_pickle=False) if path.suffix == ".npy" else pl.read_parquet(path)
    except (ValueError, EOFError, pl.exceptions.PolarsError) as error:
        # numpy names a way to load pickled objects, which can run code
        why = "it holds no plain numbers" if "pickle" in str(error) else str(error).splitlines()[0]
        raise InputError(f"{what}: {name} cannot be read as {path.suffix}: {why}") from None


def _read_frame(rows: Dataset, frame: pl.DataFrame, place: str, names: Sequence[str]) -> Any:
    """Return the numbers of a table, of the rows in their order where it names them."""
    if ROW_ID in frame.columns:
        frame = _align(rows, frame, place)
    values = frame.drop(ROW_ID, strict=False)
    nested = [name for name, kind in values.schema.items() if kind.is_nested()]
    if len(nested) == 1:
        return _stack_lists(values[nested[0]], f"{place}: column '{nested[0]}'")
    numeric = [name for name, kind in values.schema.items() if kind.is_numeric()]
    if nested or len(numeric) < len(values.columns) or not numeric:
        raise InputError(
            f"{place}: must have one column of lists, or numbers alone, besides row_id, got "
            f"{', '.join(f'{name} ({kind})' for name, kind in list(values.schema.items())[:5])}"
        )
    # columns named after the labels may stand in any order
    if names and set(names) == set(numeric):
        numeric = list(names)
    elif known := sorted(set(names) & set(numeric)):
        raise InputError(
            f"{place}: must have a column for each label ({first_three(names)}), got {first_three(sorted(numeric))}; "
            f"of these only {first_three(known)} are labels of the rows"
        )
    return values.select(numeric).to_numpy()


def _align(rows: Dataset, frame: pl.DataFrame, place: str) -> pl.DataFrame:
    """Return the lines of a table in the order of the rows, found by their ids."""
    ids = frame[ROW_ID].cast(pl.String)
    if ids.n_unique() < len(ids):
        raise InputError(f"{place}: each row_id must occur once, found '{ids.filter(ids.is_duplicated())[0]}' twice")
    lines = pl.DataFrame({ROW_ID: ids, "line": np.arange(len(ids))})
    line = rows.frame.select(ROW_ID).join(lines, on=ROW_ID, how="left", maintain_order="left")["line"]
    if n_lost := line.null_count():
        lost = rows.frame[ROW_ID].filter(line.is_null())[0]
        raise InputError(
            f"{place}: must have a line for each of the {len(rows):,} rows, found none for {n_lost:,} of them (first: "
            f"row_id '{lost}'); make it from the same rows"
        )
    return frame[line.to_numpy()]


def _stack_lists(column: pl.Series, place: str) -> Array:
    """Return a column of lists as a matrix; lists that were stored as JSON text are parsed."""
    values = column.to_list()
    try:
        lists = [json.loads(value) if isinstance(value, str) else value for value in values]
    except ValueError:
        lists = [None]
    is_list = [isinstance(value, list) for value in lists]
    if not all(is_list):
        row = is_list.index(False)
        raise InputError(
            f"{place} must hold a list of numbers in every row, got {str(values[row])[:40]!r} in row {row}"
        )
    lengths = {len(value) for value in lists}
    if len(lengths) > 1:
        raise InputError(f"{place} must hold lists of one length, got lengths from {min(lengths)} to {max(lengths)}")
    return _as_numbers(lists, place)


def _as_numbers(source: Any, place: str) -> Array:
    try:
        matrix = np.asarray(source)
        if matrix.dtype == object and matrix.ndim == 1 and len(matrix):
            # a column of arrays, as of pandas
            matrix = np.stack([np.asarray(row) for row in matrix])
    except (ValueError, TypeError):
        raise InputError(
            f"{place}: must be rows of numbers of one length, got lines of different kinds or lengths"
        ) from None
    if matrix.dtype.kind not in "fiu" or matrix.ndim != 2 or not matrix.shape[1]:
        raise InputError(
            f"{place}: must be an array of numbers, one line per row, got shape {matrix.shape} of {matrix.dtype}"
        )
    return matrix


def _match_rows(rows: Dataset, matrix: Array, place: str) -> Array:
    """Return one line per usable row: a line for each row that was read will do, too."""
    if len(matrix) == len(rows):
        return matrix
    usable = _find_usable(rows) if len(matrix) == rows.n_read else None
    if usable is not None:
        return matrix[usable]
    both = f"{len(rows):,} usable rows" + (f" (or the {rows.n_read:,} read)" if rows.n_read != len(rows) else "")
    raise InputError(
        f"{place}: must have a line for each of the {both}, got {len(matrix):,}; make it from the same rows, or give a "
        f"Parquet file with a column row_id ('thresher score --features length' writes the ids)"
    )


def _find_usable(rows: Dataset) -> Int64 | None:
    """Return the place of each usable row among all that were read; None where it is not known."""
    if len(rows.shards) > 1 or len(rows) + rows.n_rejected != rows.n_read:
        return None
    lines = np.concatenate([rows.frame["line"].to_numpy(), rows.rejected["line"].to_numpy()])
    if len(np.unique(lines)) < len(lines):
        return None
    place: Int64 = np.searchsorted(np.sort(lines), lines[: len(rows)])
    return place


def _check_finite(matrix: Array, what: str) -> None:
    is_bad = ~np.isfinite(matrix).all(axis=1)
    if is_bad.any():
        raise InputError(
            f"{what}: must be finite numbers, found NaN or infinity in {int(is_bad.sum()):,} of {len(matrix):,} rows "
            f"(first: row {int(np.flatnonzero(is_bad)[0])}); leave these rows out"
        )
