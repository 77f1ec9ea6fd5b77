"""The options by which people bring values of their own; `given.py` reads these values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from thresher.validation import Settings, option

if TYPE_CHECKING:
    from thresher.dataset.dataset import Dataset

PANEL = "Your own vectors and probabilities"


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenSettings(Settings):
    """Values of the rows that the user has already, in place of those that a model would make."""

    where = "load"

    embeddings: Any = option(
        None,
        "Your own vectors, one per row, instead of an encoder: a column, or a .npy or Parquet file (in any order "
        "if it has a column row_id).",
        panel=PANEL,
    )
    pred_probs: Any = option(
        None,
        "Your own class probabilities, one line per row and one number per label in sorted order, from a model "
        "that was not trained on the row: a column, or a .npy or Parquet file.",
        panel=PANEL,
    )

    def attach(self, rows: Dataset) -> Dataset:
        """Return the rows with what was given.

        Raises:
            InputError: it does not fit the rows.
        """
        from thresher.dataset.values.given import attach_embeddings, attach_probabilities

        if self.embeddings is not None:
            rows = attach_embeddings(rows, self.embeddings)
        if self.pred_probs is not None:
            rows = attach_probabilities(rows, self.pred_probs)
        return rows

    def attach_to_others(self, rows: Dataset) -> Dataset:
        """Return rows beside the pool with their vectors, where a column or row ids name them.

        Raises:
            InputError: these vectors do not fit the rows.
        """
        from thresher.dataset.values.given import EMBEDDING, attach_embeddings, has_ids

        source = self.embeddings
        if source is None or EMBEDDING in rows.given:
            return rows
        is_column = isinstance(source, str) and source in rows.column_names
        return attach_embeddings(rows, source) if is_column or has_ids(source) else rows


class GivenOptions(TypedDict, total=False):
    """The fields of `GivenSettings` as keyword arguments, for type checkers."""

    embeddings: Any
    pred_probs: Any
