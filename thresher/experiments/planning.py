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

from thresher.errors import SettingsError
from thresher.evaluation.curves.curve_fit import CurveFit
from thresher.evaluation.curves.enough import judge
from thresher.evaluation.curves.interval import COVERAGE
from thresher.experiments.own.method_file import list_methods
from thresher.experiments.settings import BASELINE, CurveSettings

MIN_CELLS = 4  # of each method: the first ones, without which there is no answer
START_SIZES = 4  # spread over all sizes, the largest among them
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
    """Return the first cells as (size, seed), in an order of which any four allow an answer.

    One run each of a small, a middle and the largest size, a second one of the small size, whose
    spread is the error bar; then the smallest size and further seeds of all but the largest.
    """
    places = np.unique(np.linspace(0, len(sizes) - 1, START_SIZES).round().astype(int))
    *spread, largest = (sorted(sizes)[place] for place in places)
    core = spread[-2:]  # without the smallest one, where there are four
    cells = [(size, 0) for size in (*core, largest)] + [(core[0], 1)]
    cells += [(size, 0) for size in spread] + [(size, 1) for size in reversed(spread)]
    return list(dict.fromkeys(cell for cell in cells if cell[1] < n_seeds))


def is_firm(fit: CurveFit, *, within: float, largest: int) -> bool:
    """Tell whether more runs would hardly change the answer."""
    return judge(fit, within, of=largest) != "cannot tell"


def predict_width(fit: CurveFit, size: int, *, within: float, largest: int, rng: np.random.Generator) -> float:
    """Return the expected width of the interval (log scale) after one more run at a size."""
    # samples are sorted by their answer, so that quantiles can be read off cumulated weights
    point = np.log(fit.sampled_enough_sizes(within, largest))
    order = np.argsort(point)
    point, errors = point[order], fit.sampled_errors([size], is_falling=True)[order, 0]
    # what the run may show: the error of a random sample, with the luck of its seed and of the test
    # rows on top; theirs at a size that was not measured is taken from the measured ones
    variance = fit.seed_sd**2 + np.diag(fit.test_covariance)
    sd = float(np.sqrt(np.interp(np.log(size), np.log(fit.sizes), variance))) * fit.misfit
    outcomes = rng.choice(errors, N_OUTCOMES) + rng.normal(0, sd, N_OUTCOMES)
    # a sample counts by its normal likelihood of the outcome, the largest being 1: (samples,
    # outcomes)
    log_likelihood = -0.5 * ((outcomes[None, :] - errors[:, None]) / sd) ** 2
    weight = np.exp(log_likelihood - log_likelihood.max(axis=0))
    cumulated = np.cumsum(weight / weight.sum(axis=0), axis=0)
    # the quantile q is the first sample at which the cumulated weight reaches q
    ends = [point[(cumulated < q).sum(axis=0).clip(max=len(point) - 1)] for q in QUANTILES]
    return float((ends[1] - ends[0]).mean())


def compute_width(fit: CurveFit, within: float, largest: int) -> float:
    """Return the width of the present interval on a log scale."""
    point = np.log(fit.sampled_enough_sizes(within, largest))
    low, high = np.quantile(point, QUANTILES, method="inverted_cdf")
    return float(high - low)


def propose_cells(
    fit: CurveFit,
    *,
    counts: dict[int, int],
    n_seeds: int,
    within: float,
    cost: Cost,
    n: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """Return up to n next cells as (size, seed), the best for its cost first, if worth it.

    Args:
        fit: of what is known.
        counts: runs done (or failed) so far at each size that may be measured.
        n_seeds: at most, per size.
        within: tolerance, in units of the metric.
        cost: of a cell.
        n: cells to return, at most.
        rng: for the imagined outcomes.
    """
    largest = max(counts)
    now = compute_width(fit, within, largest)
    worth = []
    for size, done in sorted(counts.items()):
        if done >= n_seeds:
            continue
        saved = now - predict_width(fit, size, within=within, largest=largest, rng=rng)
        if saved > MIN_NARROWING * now:
            worth.append((saved / cost.compute(size), size, done))
    worth.sort(key=lambda entry: (-entry[0], entry[1]))
    cells = [(size, done) for _, size, done in worth[:n]]
    if cells and len(cells) < n:  # fewer sizes than workers: more seeds of the best size
        size, done = cells[0]
        cells += [(size, seed) for seed in range(done + 1, min(n_seeds, done + 1 + n - len(cells)))]
    return cells


def choose_curve_methods(settings: CurveSettings, kind: str) -> list[str]:
    """Return the methods of a curve, the baseline first.

    By default these are random rows and the method that was better than them most often; without
    labels there is none.

    Args:
        settings: of the curve.
        kind: of the rows.

    Raises:
        InputError: there is none among those that were asked for.
    """
    if settings.methods is not None:
        return list_methods(settings.methods, "curve")
    return [BASELINE, "prototypes"] if kind == "classification" and settings.axis is None else [BASELINE]


def check_rates(settings: CurveSettings, metric: str) -> None:
    """Refuse scores and tolerances that no rate has.

    Args:
        settings: of the curve.
        metric: name of a metric whose values lie in 0..1.

    Raises:
        SettingsError: a target is above 1, or the tolerance is.
    """
    for target in settings.targets:
        if target > 1:
            raise SettingsError(
                f"curve: a target of {metric} must be in 0..1, got {target:g}; for {target:g}% write {target / 100:g}"
            )
    amount = settings.tolerance.amount
    if amount >= 1:
        raise SettingsError(
            f"curve: within must be below 1 for {metric}, which lies in 0..1, got {settings.within}; "
            f"for {amount:g} points write {amount:g}% or {amount / 100:g}"
        )
