"""The arrow from a dataset to features: each feature once, every array in the order of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.features.container import Features, current_name
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues, load_provider
from thresher.numeric.arrays import Array

if TYPE_CHECKING:
    from thresher.dataset import Dataset

COLUMN = "column:"
NUMBER = "number:"
NO_NUMBER = "its column '{}' holds no number"


def compute(dataset: Dataset, needs: Iterable[str], context: FeatureContext | None = None) -> Features:
    """Compute named features of every row.

    Args:
        dataset: its rows.
        needs: "length", "embedding", "loss", "column:NAME", "number:NAME", or any other feature
            that `available` lists.
        context: models, device and cache; None for the defaults.

    Returns:
        `embedding` (n, d) float32 unit rows, `length` (n,) int64 tokens, `column:NAME` (n,) int64
        codes, `number:NAME` (n,) float64, `loss` and `loss_unconditional` (n,) float64 nats per
        token, NaN with a reason, `n_response_tokens` (n,) int64 tokens.
    """
    context = FeatureContext() if context is None else context
    names = sorted(set(map(current_name, needs)))
    providers = {name: load_provider(name) for name in names if not name.startswith((COLUMN, NUMBER))}
    arrays: dict[str, Array] = {
        name: column_codes(dataset, name.removeprefix(COLUMN)) for name in names if name.startswith(COLUMN)
    }  # cheap ones first: a wrong column name must not cost an embedding run
    numbers = {name: column_numbers(dataset, name.removeprefix(NUMBER)) for name in names if name.startswith(NUMBER)}
    computed = numbers | {name: provider.compute(dataset, context) for name, provider in providers.items()}
    partial = {name: result for name, result in computed.items() if isinstance(result, FeatureValues)}
    arrays |= {
        name: result.values if isinstance(result, FeatureValues) else result for name, result in computed.items()
    }
    return Features(
        row_id=dataset.frame["row_id"],
        arrays=arrays,
        missing={name: result.missing for name, result in partial.items()},
        reasons={name: result.reasons for name, result in partial.items() if result.reasons is not None},
        notes={name: result.notes for name, result in partial.items()} | _facts(providers, dataset, context),
    )


def _facts(
    providers: Mapping[str, FeatureProvider], dataset: Dataset, context: FeatureContext
) -> dict[str, dict[str, int]]:
    """Return the facts that features tell of rows besides their values; those that have some."""
    facts = {name: dict(provider.facts(dataset, context)) for name, provider in providers.items()}
    return {name: counts for name, counts in facts.items() if counts}


def fingerprints(
    needs: Iterable[str], context: FeatureContext, *, kind: str | None = None
) -> dict[str, dict[str, str]]:
    """Return what stands behind each feature besides the rows: names and fingerprints of models.

    Args:
        needs: as for `compute`; columns need no model and are left out.
        context: with its encoder resolved (`FeatureContext.resolved`).
        kind: of the dataset; None where it is not known.
    """
    names = sorted(name for name in set(map(current_name, needs)) if not name.startswith((COLUMN, NUMBER)))
    providers = {name: load_provider(name) for name in names}
    return {
        name: provider.describe(context) if kind is None else provider.describe_kind(context, kind)
        for name, provider in providers.items()
    }


def column_codes(dataset: Dataset, name: str) -> NDArray[np.int64]:
    """Return (n,) int64: the rank of each row's value among the distinct values of the column."""
    ranks = column_values(dataset, name).rank("dense").to_numpy()
    codes: NDArray[np.int64] = ranks.astype(np.int64) - 1
    return codes


def column_numbers(dataset: Dataset, name: str) -> FeatureValues:
    """Return the numbers of a column, (n,) float64; NaN with its reason where it is empty.

    Raises:
        InputError: the column holds something else than numbers.
    """
    column = dataset.column(name)
    is_plain = not (column.dtype.is_nested() or column.dtype == pl.Object)
    values = column.cast(pl.Float64, strict=False) if is_plain else column.is_null().cast(pl.Float64)
    wrong = column.filter(column.is_not_null() & values.is_null()) if is_plain else column.drop_nulls()
    if len(wrong):
        raise InputError(
            f"column '{name}' must hold numbers, found {len(wrong):,} other values (first: {str(wrong[0])[:40]!r}); "
            f"choose another column"
        )
    numbers: NDArray[np.float64] = values.fill_null(np.nan).to_numpy().copy()
    numbers[np.isinf(numbers)] = np.nan
    reasons = np.where(np.isnan(numbers), NO_NUMBER.format(name), "")
    return FeatureValues(values=numbers, missing=pl.Series("missing", reasons, dtype=pl.String).replace("", None))


def column_values(dataset: Dataset, name: str) -> pl.Series:
    """Return the (n,) string values behind a column's codes; a missing value counts as "".

    Args:
        dataset: its rows.
        name: "label" (the label of classification data, else the user's column of that name),
            "source" (the user's column, or else the file that a row stands in), or any of the
            user's columns.

    Raises:
        InputError: the column holds lists or objects, which have no groups.
    """
    values: pl.Series = _column(dataset, name)
    if values.dtype.is_nested() or values.dtype == pl.Object:
        raise InputError(
            f"column '{name}' must hold one plain value per row, got {values.dtype}; choose a column of text or numbers"
        )
    return values.cast(pl.String).fill_null("").alias(name)


def _column(dataset: Dataset, name: str) -> pl.Series:
    frame: pl.DataFrame = dataset.frame
    if name == "label" and dataset.kind == "classification":
        return frame["response"]
    if name == "source" and name not in dataset.column_names:
        return frame["file"]
    column: pl.Series = dataset.column(name)
    return column
