"""Scores: one value per row, higher is kept first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.numeric.arrays import Bool, Int64
from thresher.numeric.units import format_count
from thresher.printable import escape_line

EXISTING = -2  # in `covered_by`: a row that the user has already


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The result of a selector for each row.

    Attributes:
        row_id: (n,) string, in the order of the features that were scored.
        value: (n,) float64, higher is kept first. A greedy method that ranks only a part of the
            rows gives its picks 0, -1, -2, ... in pick order and -inf to the rest.
        by: name of the selector.
        covered_by: (n,) int64 or None: position of the picked row that stands for this row (itself
            for a pick), -1 where none does, EXISTING where a row the user has already does. Becomes
            the reason of a dropped row.
        similarity: (n,) float32 or None: cosine with that row.
        excluded: (n,) string or None: why the method gives a row no place at all, null for the
            others. Its value is -inf, and no budget is large enough for it. Becomes the explanation
            of a dropped row.
        objective: (k,) float64 or None: value of the method's objective after each pick.
        notes: facts the manifest should carry (for example "kernel": "exact", "n_neighbors": 64).
        pilot: JSON values, how a method was decided on; the manifest carries them too.
    """

    row_id: pl.Series
    value: NDArray[np.float64]
    by: str
    covered_by: NDArray[np.int64] | None = None
    similarity: NDArray[np.float32] | None = None
    excluded: pl.Series | None = None
    objective: NDArray[np.float64] | None = None
    notes: dict[str, str | int | float] | None = None
    pilot: dict[str, Any] | None = None

    def __repr__(self) -> str:
        """Return the number of rows and who scored them."""
        return escape_line(f"Scores({format_count(len(self.row_id), 'row')}, by={self.by!r})")

    def __post_init__(self) -> None:
        """Refuse NaN, arrays that do not match the rows, and excluded rows with a value."""
        n = len(self.row_id)
        for name, kinds in (("value", "fiu"), ("covered_by", "iu"), ("similarity", "f")):
            array = getattr(self, name)
            if array is None and name != "value":
                continue
            if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
                got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                what = "positions" if name == "covered_by" else "numbers"
                raise InputError(f"scores of '{self.by}': {name} must be an array of {what}, got {got}")
            if array.shape != (n,):
                raise InputError(f"scores of '{self.by}': {name} must have shape ({n},), got {array.shape}")
        if self.covered_by is not None and ((self.covered_by < EXISTING) | (self.covered_by >= n)).any():
            raise InputError(
                f"scores of '{self.by}': covered_by must be positions of rows, -1 or {EXISTING}, got others"
            )
        if self.excluded is not None and len(self.excluded) != n:
            raise InputError(f"scores of '{self.by}': excluded must have {n} entries, got {len(self.excluded)}")
        if self.excluded is not None and (self.value[self.excluded.is_not_null().to_numpy()] > -np.inf).any():
            raise InputError(f"scores of '{self.by}': rows that are excluded must have the value -inf")
        n_nan = int(np.isnan(self.value).sum())
        if n_nan:
            raise InputError(
                f"scores of '{self.by}': {n_nan} of {n} values are NaN; give -inf to rows that have no score"
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.row_id)

    @property
    def n_ranked(self) -> int:
        """Number of rows that have a finite score."""
        return int((self.value > -np.inf).sum())

    def ranking(self) -> NDArray[np.int64]:
        """Return the ranked rows, best first: (n_ranked,) positions.

        Ties go to the lower row id, so that the order of the rows does not matter.
        """
        by_id = self.row_id.arg_sort().to_numpy().astype(np.int64)
        ranking: NDArray[np.int64] = by_id[np.argsort(-self.value[by_id], kind="stable")[: self.n_ranked]]
        return ranking


def fill_ranking(picks: Int64, n_ranked: int, is_open: Bool) -> Int64:
    """Return the picks, filled up to `n_ranked` with the lowest open rows not among them."""
    is_rest = is_open.copy()
    is_rest[picks] = False
    return np.concatenate([picks, np.flatnonzero(is_rest)[: n_ranked - len(picks)]])


def ranked(n: int, picks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (n,) scores of a ranking: 0, -1, -2, ... for the picks, -inf for the rest."""
    value = np.full(n, -np.inf)
    value[picks] = -np.arange(len(picks), dtype=np.float64)
    return value
