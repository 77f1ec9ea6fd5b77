"""Results that hold rows: kept ones of a pool, used like the table that they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from thresher.artifacts.result import Result

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import polars as pl

    from thresher.dataset.dataset import Dataset


class KeptRows(Result):
    """A result with rows: whatever takes rows takes it, too.

    Attributes:
        dataset: the rows.
    """

    dataset: Dataset

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows, each with all of the user's own columns."""
        return self.dataset.rows(range(len(self)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, each with all of the user's own columns."""
        return iter(self.dataset)

    def head(self, n: int = 5) -> pl.DataFrame:
        """Return the user's own columns of the first rows."""
        return self.dataset.head(n)

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a polars table of the user's own columns."""
        return self.dataset.to_polars()

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas table of the user's own columns."""
        return self.dataset.to_pandas()

    def to_datasets(self) -> datasets.Dataset:
        """Return the rows as a Hugging Face `datasets.Dataset`."""
        return self.dataset.to_datasets()
