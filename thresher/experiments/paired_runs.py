"""Runs of two sides with the same seeds on the same test rows: what every difference is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.evaluation.effect import Effect, adjust_p_values, describe_effect, estimate_effect
from thresher.evaluation.lm_eval_task import LmEvalMetric
from thresher.evaluation.metric import POINTS, Metric, Unit, find_unit
from thresher.experiments.own.trainer import ONE_NUMBER
from thresher.numeric.arrays import Float64, Int64


@dataclass(frozen=True)
class PairedRuns:
    """Outcomes of the seeds that finished on both sides.

    Attributes:
        metric: that is compared.
        ours: one table of outcomes per seed.
        theirs: of the other side, same seeds.
        shared: correlation of two seeds, from the rows that both chose; see `estimate_overlap`.
    """

    metric: Metric
    ours: tuple[pl.DataFrame, ...]
    theirs: tuple[pl.DataFrame, ...]
    shared: float = 0.0

    @staticmethod
    def match(
        metric: Metric,
        ours: Iterable[pl.DataFrame | None],
        theirs: Iterable[pl.DataFrame | None],
        *,
        shared: float = 0.0,
    ) -> PairedRuns:
        """Return the pairs of which both runs finished; failed ones are None."""
        pairs = zip(ours, theirs, strict=True)
        finished = [(our, their) for our, their in pairs if our is not None and their is not None]
        return PairedRuns(metric, tuple(our for our, _ in finished), tuple(their for _, their in finished), shared)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.ours)

    def stack(self) -> tuple[Float64, Float64, Float64 | None]:
        """Return the values of both sides, (seeds, n) each, and the rows' weights, (n,) or None.

        They are of the test rows on which every run has a value, whatever else a model can read.
        """
        sides = self._aligned
        ours, theirs = (np.stack([self.metric.per_row(table) for table in side]) for side in sides)
        return ours, theirs, self.metric.weights(sides[0][0])

    @cached_property
    def _aligned(self) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
        tables = align_tables(self.metric, (*self.ours, *self.theirs))
        return tables[: len(self.ours)], tables[len(self.ours) :]

    def compute_means(self) -> tuple[float, float]:
        """Return the mean of the metric over the seeds of each side."""
        ours, theirs = (float(np.mean([self.metric.measure(table).value for table in side])) for side in self._aligned)
        return ours, theirs

    @property
    def unit(self) -> Unit:
        """What differences of the metric are told in."""
        return find_unit(self.metric.name, is_higher_better=self.metric.is_higher_better, values=self.compute_means())

    def estimate_effect(self, *, n_tests: int = 1) -> Effect:
        """Return the difference, positive where our side is better; needs two pairs.

        Args:
            n_tests: comparisons that are made together.
        """
        return estimate_effect(
            *self.stack(),
            is_higher_better=self.metric.is_higher_better,
            n_tests=n_tests,
            shared=self.shared,
            resolution=max(find_resolution(self.metric, table) for table in (*self.ours, *self.theirs)),
        )


def align_tables(metric: Metric, tables: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """Return tables of outcomes on the test rows on which all have a value, in one order.

    Args:
        metric: whose values are paired; the documents of an lm-eval task are no test rows, and the
            same for all.
        tables: of runs, which may be of models that read different rows.

    Raises:
        InputError: there are fewer than two such rows.
    """
    if isinstance(metric, LmEvalMetric):
        return list(tables)
    valued = [table if metric.column is None else table.filter(pl.col(metric.column).is_not_null()) for table in tables]
    if all(table["row_id"].equals(valued[0]["row_id"]) for table in valued[1:]):
        return list(tables)
    shared = set.intersection(*[set(table["row_id"]) for table in valued])
    if len(shared) < 2:
        raise InputError(
            f"eval: runs are compared on test rows that all of them can measure, and there are {len(shared)} of "
            f"these, not 2; raise max_length (--train max_length=N), or give more test rows"
        )
    return [table.filter(pl.col("row_id").is_in(list(shared))).sort("row_id") for table in valued]


def compare_by_metrics(
    pairs: Sequence[PairedRuns], metrics: Sequence[Metric], own: Sequence[float]
) -> list[dict[str, dict[str, Any]]]:
    """Return what other metrics say of pairs, beside the verdict by the one that was chosen before.

    The p-values of all metrics are one family, corrected by Holm's procedure.

    Args:
        pairs: that are compared, two runs or more on each side.
        metrics: the others, which are rates.
        own: p-value of each pair by its own metric.

    Returns:
        Of each pair, by the name of the metric: `difference`, `p_holm` and `sentence`.
    """
    verdicts: list[dict[str, dict[str, Any]]] = [{} for _ in pairs]
    places = [(number, metric) for metric in metrics for number in range(len(pairs))]
    n_tests = len(own) + len(places)
    effects = [replace(pairs[number], metric=metric).estimate_effect(n_tests=n_tests) for number, metric in places]
    adjusted = adjust_p_values([*own, *(effect.p for effect in effects)])[len(own) :]
    for (number, metric), effect, p in zip(places, effects, adjusted, strict=True):
        sentence = describe_effect(effect, p, POINTS)
        verdicts[number][metric.name] = {"difference": asdict(effect), "p_holm": p, "sentence": sentence}
    return verdicts


def find_resolution(metric: Metric, table: pl.DataFrame) -> float:
    """Return the step in which a score is known: of a rate where a run has one number, else 0."""
    is_one = ONE_NUMBER in table.columns and bool(table[ONE_NUMBER].all())
    return 1 / len(table) if is_one and metric.is_higher_better else 0.0


def estimate_overlap(choices: Sequence[Int64], n_pool: int) -> float:
    """Return the share of rows that two seeds' choices have in common beyond chance, 0..1.

    Random rows have none, and a method that does not draw has nearly all that its pools share. What
    a choice owes to its luck is a sum over its rows, so this is the correlation of that luck.

    Args:
        choices: of each seed, (k,) positions in the pool.
        n_pool: rows to choose from.
    """
    k = len(choices[0])
    pairs = [np.isin(a, b).mean() for i, a in enumerate(choices) for b in choices[:i]]
    if not pairs or k >= n_pool:
        return 0.0
    chance = k / n_pool
    return float(max(0.0, (np.mean(pairs) - chance) / (1 - chance)))
