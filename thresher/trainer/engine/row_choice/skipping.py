"""Rows that a training passes over where they are easy, so that the mean gradient stays the same.

* revisit (InfoBatch, Qin et al. 2024, arXiv:2303.04947): from the second epoch on, a row whose last
  loss was below the mean is left out with a chance of r; one that is not counts 1 / (1 - r). In the
  last eighth of the steps all rows are learned from.
* first (Multistage Data Filtering): before each step the model reads its rows without gradients; a
  row whose loss is below the running mean of rows of its length is left out with a chance of r, and
  counts 1 / (1 - r) where it is not.

In both, the expected gradient of a step is that of all its rows. A step keeps its place in the
schedule however few of its rows are left.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from thresher.numeric.arrays import Bool, Float64, Int64

if TYPE_CHECKING:
    from thresher.trainer.engine.batches import BatchSampler
    from thresher.trainer.settings import TrainSettings

ALL_ROWS_FROM = 7 / 8  # of the steps (revisit)
FEWEST_SEEN = 8  # rows of a length from which on their mean says what is easy (first)
WINDOW = 100  # rows of a length that the running mean remembers
SKIPPING = "skipping/"  # begins the names of its state
REVISIT, FIRST = 29, 31  # of the draws


class Skipping(ABC):
    """What is known of the rows of a run, and which of them are learned from.

    Attributes:
        looks_first: whether losses of a step's rows are needed before it.
        batches: rows of each step.
        rate: chance by which an easy row is left out.
        losses: (epochs, n) float32 mean loss of each row's predictions; nan where not measured.
        is_skipped: (epochs, n).
    """

    looks_first = False

    def __init__(self, batches: BatchSampler, rate: float) -> None:
        self.batches, self.rate = batches, rate
        shape = (math.ceil(batches.n_steps / batches.n_epoch_steps), len(batches.rows))
        self.losses = np.full(shape, np.nan, np.float32)
        self.is_skipped: Bool = np.zeros(shape, np.bool_)

    def choose(self, step: int, rows: Int64, losses: Float64 | None) -> Float64:
        """Return how much each row of a step counts, (k,): 0 where it is left out.

        Args:
            step: counted from 0.
            rows: (k,) of the step.
            losses: (k,) of them now, where `looks_first`.
        """
        is_easy, draws = self._judge(step, rows, losses)
        factors = np.where(is_easy, 1 / (1 - self.rate), 1.0)
        factors[is_easy & (draws < self.rate)] = 0.0
        self.is_skipped[step // self.batches.n_epoch_steps, rows] = factors == 0
        return factors

    @abstractmethod
    def _judge(self, step: int, rows: Int64, losses: Float64 | None) -> tuple[Bool, Float64]:
        """Return which rows of a step are easy, (k,), and a draw of 0..1 for each, (k,)."""

    def record(self, step: int, rows: Int64, losses: Float64) -> None:
        """Take the losses that some rows had in a step, (k,)."""
        self.losses[step // self.batches.n_epoch_steps, rows] = losses

    def get_state(self) -> dict[str, torch.Tensor]:
        """Return what a resumed run needs, by name."""
        return {
            f"{SKIPPING}losses": torch.from_numpy(self.losses.copy()),
            f"{SKIPPING}is_skipped": torch.from_numpy(self.is_skipped.copy()),
        }

    def set_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up a state of `get_state`."""
        self.losses = state[f"{SKIPPING}losses"].numpy().copy()
        self.is_skipped = state[f"{SKIPPING}is_skipped"].numpy().copy()

    def tabulate(self) -> pl.DataFrame:
        """Return one row per row and epoch: `row_id`, `epoch` from 1, `loss`, `skipped`."""
        names = [row.row_id for row in self.batches.rows]
        epochs, rows = np.nonzero(~np.isnan(self.losses) | self.is_skipped)
        return pl.DataFrame(
            {
                "row_id": [names[i] for i in rows],
                "epoch": epochs + 1,
                "loss": pl.Series(self.losses[epochs, rows]).fill_nan(None),
                "skipped": self.is_skipped[epochs, rows],
            }
        )


class Revisit(Skipping):
    """InfoBatch."""

    def _judge(self, step: int, rows: Int64, losses: Float64 | None) -> tuple[Bool, Float64]:
        epoch = step // self.batches.n_epoch_steps
        draws = np.random.default_rng([self.batches.seed, epoch, REVISIT]).random(self.losses.shape[1])[rows]
        if not epoch or step >= ALL_ROWS_FROM * self.batches.n_steps:
            return np.zeros(len(rows), np.bool_), draws
        # of epochs that are over, so that a run that is resumed within one judges as before
        last = self.losses[0].copy()
        for of_epoch in self.losses[1:epoch]:
            last = np.where(np.isnan(of_epoch), last, of_epoch)
        with np.errstate(invalid="ignore"):
            return np.asarray(last[rows] < np.nanmean(last)), draws


class First(Skipping):
    """A look without gradients before each step."""

    looks_first = True

    def __init__(self, batches: BatchSampler, rate: float) -> None:
        super().__init__(batches, rate)
        self._bucket = np.log2(np.maximum(batches.lengths, 1)).astype(np.int64)
        self._mean = np.zeros(int(self._bucket.max()) + 1)
        self._n_seen = np.zeros(len(self._mean))

    def _judge(self, step: int, rows: Int64, losses: Float64 | None) -> tuple[Bool, Float64]:
        if losses is None:
            raise AssertionError("rows are looked at before they are judged")
        draws = np.random.default_rng([self.batches.seed, step, FIRST]).random(len(rows))
        bucket = self._bucket[rows]
        is_easy = (self._n_seen[bucket] >= FEWEST_SEEN) & (losses < self._mean[bucket])
        for own, loss in zip(bucket, losses, strict=True):
            self._n_seen[own] += 1
            self._mean[own] += (loss - self._mean[own]) / min(self._n_seen[own], WINDOW)
        return is_easy, draws

    def get_state(self) -> dict[str, torch.Tensor]:
        """Return what a resumed run needs, by name."""
        means = torch.from_numpy(np.stack([self._mean, self._n_seen]))
        return {**super().get_state(), f"{SKIPPING}means": means}

    def set_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up a state of `get_state`."""
        super().set_state(state)
        self._mean, self._n_seen = state[f"{SKIPPING}means"].numpy().copy()


def build_skipping(settings: TrainSettings, batches: BatchSampler) -> Skipping | None:
    """Return how rows are passed over; None where none is."""
    if settings.skip == "none":
        return None
    return (Revisit if settings.skip == "revisit" else First)(batches, settings.chance_to_skip)


def describe_skipping(table: pl.DataFrame, settings: TrainSettings) -> dict[str, Any]:
    """Return how many passes over rows there were, and how many were saved, as JSON values."""
    return {
        "skip": settings.skip,
        "rate": settings.chance_to_skip,
        "passes": len(table),
        "skipped": int(table["skipped"].sum()),
    }
