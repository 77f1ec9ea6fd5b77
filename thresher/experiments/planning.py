"""Which cell of a learning curve to run next: the one that narrows the answer most for its cost.

The samples of the fitted laws stand for what may be true. For a possible next run, outcomes are
sampled from them, each sample is weighted by how well it would predict the outcome, and the width
of the interval that would be left is averaged (expected information by importance weights; Chaloner
and Verdinelli 1995, doi:10.1214/ss/1177009939).

Costs are counted in rows that pass through the model, not in seconds, so that a killed and resumed
experiment plans as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thresher.evaluation.saturation import COVERAGE, CurveFit
from thresher.numeric.arrays import Float64

START_SIZES = 4  # the smallest ones are measured first, because they cost least
START_SEEDS = 2
FIRM = 2.0  # upper over lower end of an interval that needs no more runs
QUANTILES = ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2)  # the ends of an interval
BACKWARD = 2.0  # a backward pass costs as much as two forward ones
N_OUTCOMES = 64  # imagined outcomes of each possible run
MIN_NARROWING = 0.01  # a run must narrow the interval by this share to be worth its cost


@dataclass(frozen=True)
class Cost:
    """What a cell costs, in rows that pass forward through the model.

    Attributes:
        epochs: passes over the rows; None where every cell has the same steps.
        equal_rows: rows that pass in those steps.
        n_test: test rows.
        least_rows: rows that pass in the fewest steps that a cell may have.
    """

    epochs: float | None
    equal_rows: int
    n_test: int
    least_rows: int = 0

    def compute(self, n_rows: int) -> float:
        """Return the cost of a cell of this size."""
        learned = self.equal_rows if self.epochs is None else max(self.epochs * n_rows, self.least_rows)
        return (1 + BACKWARD) * learned + self.n_test


def list_doubling_sizes(n_pool: int, *, n_classes: int = 0, n_sizes: int = 7) -> list[int]:
    """Return sizes that double up to the whole pool: few enough to pay for, enough to see a law.

    Args:
        n_pool: rows there are.
        n_classes: of the data; the smallest size has as many rows where that leaves six sizes.
        n_sizes: at most.
    """
    smallest = max(16, min(n_classes, n_pool // 32))
    sizes = [n_pool]
    while len(sizes) < n_sizes and sizes[-1] / 2 >= smallest:
        sizes.append(round(n_pool / 2 ** len(sizes)))
    return sorted(sizes)


def list_first_cells(sizes: Sequence[int], n_seeds: int) -> list[tuple[int, int]]:
    """Return the first cells as (size, seed), small ones first."""
    return [(size, seed) for size in sorted(sizes)[:START_SIZES] for seed in range(min(START_SEEDS, n_seeds))]


def is_firm(fit: CurveFit, *, delta: float, largest: int) -> bool:
    """Tell whether more runs would hardly change the answer: narrow, or surely beyond the pool."""
    points = cap_saturations(fit, delta, fit.sizes[-1])
    low, high = np.quantile(points, QUANTILES, method="inverted_cdf")
    return bool(low > largest or (np.isfinite(high) and high <= FIRM * low))


def cap_saturations(fit: CurveFit, delta: float, largest: float) -> Float64:
    """Return the saturation point of each sample, at most 64 times the largest size: (samples,)."""
    return np.minimum(fit.sampled_saturations(delta), 64 * largest)


def predict_width(fit: CurveFit, size: int, *, delta: float, rng: np.random.Generator) -> float:
    """Return the expected width of the interval (log scale) after one more run at a size."""
    # samples are sorted by their answer, so that quantiles can be read off cumulated weights
    point = np.log(cap_saturations(fit, delta, float(fit.sizes[-1])))
    order = np.argsort(point)
    point, errors = point[order], fit.sampled_errors([size])[order, 0]
    # what the run may show: the error of a random sample, with the luck of its seed on top
    sd = fit.seed_sd * fit.misfit
    outcomes = rng.choice(errors, N_OUTCOMES) + rng.normal(0, sd, N_OUTCOMES)
    # a sample counts by its normal likelihood of the outcome, the largest being 1: (samples,
    # outcomes)
    log_likelihood = -0.5 * ((outcomes[None, :] - errors[:, None]) / sd) ** 2
    weight = np.exp(log_likelihood - log_likelihood.max(axis=0))
    cumulated = np.cumsum(weight / weight.sum(axis=0), axis=0)
    # the quantile q is the first sample at which the cumulated weight reaches q
    ends = [point[(cumulated < q).sum(axis=0).clip(max=len(point) - 1)] for q in QUANTILES]
    return float((ends[1] - ends[0]).mean())


def compute_width(fit: CurveFit, delta: float) -> float:
    """Return the width of the present interval on a log scale."""
    point = np.log(cap_saturations(fit, delta, float(fit.sizes[-1])))
    low, high = np.quantile(point, QUANTILES, method="inverted_cdf")
    return float(high - low)


def propose_cells(
    fit: CurveFit,
    *,
    counts: dict[int, int],
    n_seeds: int,
    delta: float,
    cost: Cost,
    n: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """Return up to n next cells as (size, seed), the best for its cost first, if worth it.

    Args:
        fit: of what is known.
        counts: runs done (or failed) so far at each size that may be measured.
        n_seeds: at most, per size.
        delta: gain of a doubling that no longer pays.
        cost: of a cell.
        n: cells to return, at most.
        rng: for the imagined outcomes.
    """
    now = compute_width(fit, delta)
    worth = []
    for size, done in sorted(counts.items()):
        if done >= n_seeds:
            continue
        saved = now - predict_width(fit, size, delta=delta, rng=rng)
        if saved > MIN_NARROWING * now:
            worth.append((saved / cost.compute(size), size, done))
    worth.sort(key=lambda entry: (-entry[0], entry[1]))
    cells = [(size, done) for _, size, done in worth[:n]]
    if cells and len(cells) < n:  # fewer sizes than workers: more seeds of the best size
        size, done = cells[0]
        cells += [(size, seed) for seed in range(done + 1, min(n_seeds, done + 1 + n - len(cells)))]
    return cells
