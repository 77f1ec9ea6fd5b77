"""A subset that stays in its folder: tables and rows are read when they are asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.manifest import Manifest
from thresher.dataset import Dataset
from thresher.subset.scores import Scores
from thresher.subset.subset import Subset, parse_tables, read_subset_rows, read_tables


class StoredSubset(Subset):
    """A subset of `select(engine="ray")`: folder and manifest; the rest is read on demand.

    `dataset` and `rows` read the kept rows alone; `pool` reads the whole pool.
    """

    def __init__(self, folder: Path, pool: Any) -> None:
        """Point to a folder.

        Args:
            folder: that `select` wrote.
            pool: called for the rows that were chosen from.
        """
        self.__dict__.update(path=folder, manifest=Manifest.read(folder), _load=pool)

    @property
    def _folder(self) -> Path:
        return Path(self.__dict__["path"])

    @cached_property
    def pool(self) -> Dataset:
        """The rows that were chosen from."""
        pool: Dataset = self.__dict__["_load"]()
        return pool

    @cached_property
    def dropped(self) -> pl.DataFrame:
        """One row per dropped row."""
        return read_tables(self._folder, "dropped")

    @cached_property
    def _tables(self) -> tuple[Scores, NDArray[np.int64]]:
        return parse_tables(self._folder, self.manifest)

    @cached_property
    def scores(self) -> Scores:
        """Of the pool's rows."""
        return self._tables[0]

    @cached_property
    def kept(self) -> NDArray[np.int64]:
        """Positions of the kept rows in the pool."""
        return self._tables[1]

    @cached_property
    def dataset(self) -> Dataset:  # type: ignore[override]
        """The kept rows as a Dataset."""
        return read_subset_rows(self._folder)

    def __len__(self) -> int:
        """Return the number of kept rows."""
        return int(self.manifest.content["counts"]["kept"])
