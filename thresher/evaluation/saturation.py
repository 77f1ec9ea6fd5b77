"""How many rows are enough: a learning curve's law, and the size from which more data stops paying, with intervals.

The laws of `laws.py` are averaged (Hoeting et al. 1999, doi:10.1214/ss/1009212519): each counts by
its likelihood, averaged over all of its shapes, with AICc's price for height and floor (Burnham and
Anderson 2002, section 2.9). Curves are drawn in proportion to the weights, from every shape that
the points allow. The spread of a point is that between seeds, pooled over all sizes: three seeds
say too little about one size alone. Where every law misses the points by more than that spread, it
is widened to fit (Birge 1932, doi:10.1103/PhysRev.40.207). Why not the best shape and a bootstrap
around it: decision 0008.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from thresher.errors import InputError
from thresher.evaluation.laws import N_LINEAR, N_PARAMETERS, Fits, LawName, fit_law, weigh_shapes
from thresher.numeric.arrays import Float64

Status = Literal["reached", "extrapolated", "not identifiable"]

MIN_DELTA = 0.005  # half a point
COVERAGE = 0.8
BELIEVED = 4  # an interval that ends beyond so many times the largest measured size says nothing
_HORIZON = 64  # sizes up to so many times the largest one are searched
_PER_OCTAVE = 16  # sizes per doubling on the grid that is searched


@dataclass(frozen=True)
class Interval:
    """The median of the draws with its central interval (80 %); infinite where draws run beyond what was searched."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Return JSON values; infinity becomes null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass(frozen=True)
class Saturation:
    """The smallest number of rows from which doubling the data gains less than `delta`.

    Attributes:
        rows: median of the draws; None where it is not identifiable.
        low: lower end of the 80 % interval, rows.
        high: upper end, rows; None where it is beyond what can be said.
        status: "reached" (the interval ends within the measured sizes), "extrapolated" (within four
            times the largest one), or "not identifiable".
        delta: gain of a doubling that no longer pays, in units of the metric.
        next_sizes: rows to measure next, when it is not identifiable.
    """

    rows: int | None
    low: int
    high: int | None
    status: Status
    delta: float
    next_sizes: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "next_sizes": list(self.next_sizes)}

    def __str__(self) -> str:
        """Return the answer as a sentence."""
        gain = f"doubling gains less than {self.delta:.2g}"
        if self.status == "not identifiable":
            advice = f"; measure {', '.join(f'{n:,}' for n in self.next_sizes)} rows next" if self.next_sizes else ""
            return f"not identifiable: {gain} at {self.low:,} rows or later{advice}"
        return f"{self.rows:,} rows [{self.low:,}, {self.high:,}] ({self.status}): from there {gain}"


@dataclass(frozen=True)
class CurveFit:
    """A learning curve with its laws.

    Attributes:
        sizes: (m,) measured sizes, rising.
        errors: (m,) mean error over seeds (one minus the metric where higher is better).
        stderr: (m,) of the mean over seeds.
        n_seeds: (m,) runs behind each point.
        seed_sd: spread between seeds at one size, pooled over the sizes.
        test_stderr: standard error of the metric over test rows, which all points share.
        misfit: factor by which the spread was widened because no law meets the points; 1 where one
            does.
        weights: of the laws, summing to 1.
        best: each law fitted to the points.
        curves: sampled curves that the points allow, per law.
        is_higher_better: direction of the metric.
    """

    sizes: Float64
    errors: Float64
    stderr: Float64
    n_seeds: Float64
    seed_sd: float
    test_stderr: float
    misfit: float
    weights: Mapping[LawName, float]
    best: Mapping[LawName, Fits]
    curves: tuple[Fits, ...]
    is_higher_better: bool

    def sampled_errors(self, sizes: ArrayLike) -> Float64:
        """Return the error of every draw at each size: (draws, m)."""
        return np.concatenate([fits.errors(sizes) for fits in self.curves])

    def predict(self, size: float, *, same_test: bool = False) -> Interval:
        """Return the metric expected at a size.

        Args:
            size: rows.
            same_test: on these very test rows; otherwise on any rows like them, which their number
                makes less certain.
        """
        errors = self.sampled_errors([size])[:, 0]
        return self._metric_interval(errors if same_test else errors + self._test_noise(len(errors)))

    def asymptote(self) -> Interval:
        """Return the metric expected of endless rows, on any test rows like these."""
        floor = np.concatenate([fits.c for fits in self.curves])
        return self._metric_interval(floor + self._test_noise(len(floor)))

    def gain(self, size: float, more: float) -> Interval:
        """Return how much better the metric gets by `more` rows on top of `size`."""
        errors = self.sampled_errors([size, size + more])
        return _interval(errors[:, 0] - errors[:, 1])

    def rows_needed(self, target: float) -> Interval:
        """Return the rows needed for a target value of the metric; infinite where it is out of reach."""
        wanted = 1 - target if self.is_higher_better else target
        sizes = self._grid()
        errors = self.sampled_errors(sizes)
        errors += self._test_noise(len(errors))[:, None]
        return _interval(_first_crossing(sizes, wanted - errors))

    def equivalent_rows(self, other: CurveFit, size: int) -> Interval:
        """Return how many rows on this curve reach what another curve reaches at a size; draws are paired at random."""
        reached = other.sampled_errors([size])[:, 0]
        sizes = self._grid()
        errors = self.sampled_errors(sizes)
        n = min(len(reached), len(errors))
        shuffled = np.random.default_rng(0).permutation(len(reached))[:n]
        return _interval(_first_crossing(sizes, reached[shuffled, None] - errors[:n]))

    def saturation(self, *, delta: float, pool: int | None = None) -> Saturation:
        """Return from which size on doubling the data gains less than delta.

        Args:
            delta: in units of the metric.
            pool: rows there are; sizes beyond it are not proposed.
        """
        return self._judged(_interval(self.sampled_saturations(delta)), delta, pool)

    def sampled_saturations(self, delta: float) -> Float64:
        """Return the saturation point of every draw: (draws,), infinite beyond what was searched."""
        sizes = self._grid()
        errors = self.sampled_errors(np.concatenate([sizes, 2 * sizes[-_PER_OCTAVE:]]))
        return _last_crossing(sizes, errors[:, : len(sizes)] - errors[:, _PER_OCTAVE:] - delta)

    def _judged(self, found: Interval, delta: float, pool: int | None) -> Saturation:
        largest = float(self.sizes[-1])
        low = math.floor(min(found.low, sizes_end := largest * _HORIZON))
        if found.high > BELIEVED * largest:
            ahead = [round(largest * factor) for factor in (2, 4)]
            ahead = [n for n in ahead if pool is None or n <= pool]
            if not ahead and pool is not None and pool > largest:
                ahead = [pool]
            low = min(low, round(sizes_end))
            return Saturation(None, low, None, "not identifiable", delta, tuple(ahead))
        status: Status = "reached" if found.high <= largest else "extrapolated"
        return Saturation(round(found.median), low, math.ceil(found.high), status, delta)

    def _grid(self) -> Float64:
        """Return sizes from the smallest measured one on, evenly spaced on a log scale, doubling every _PER_OCTAVE."""
        octaves = math.ceil(math.log2(_HORIZON * self.sizes[-1] / self.sizes[0]))
        grid: Float64 = self.sizes[0] * 2.0 ** (np.arange(octaves * _PER_OCTAVE + 1) / _PER_OCTAVE)
        return grid

    def _test_noise(self, n: int) -> Float64:
        """Return by how much the error on other test rows may differ from that on these: (n,), one per draw."""
        noise: Float64 = np.random.default_rng(1).normal(0, self.test_stderr, n)
        return noise

    def _metric_interval(self, errors: Float64) -> Interval:
        possible = np.clip(errors, 0.0, 1.0 if self.is_higher_better else None)  # noise may lead beyond
        return _interval(1 - possible if self.is_higher_better else possible)


def fit_curve(
    sizes: Sequence[int],
    values: Sequence[Sequence[float]],
    *,
    is_higher_better: bool,
    test_stderr: float = 0.0,
    n_samples: int = 1000,
    seed: int = 0,
) -> CurveFit:
    """Fit the laws to the runs of a learning curve.

    Args:
        sizes: (m,) rows of each point, at least 3 different ones.
        values: the metric of each run, per size; at least one size with two runs.
        is_higher_better: True for rates in 0..1 (their error is one minus them), False for losses.
        test_stderr: standard error of the metric over test rows, where all runs share them: it
            widens what is said of other rows like them, and not the saturation point, which rests
            on differences.
        n_samples: curves to draw.
        seed: of the draws.

    Raises:
        InputError: too few sizes or runs, or a value that is not finite.
    """
    order = np.argsort(np.asarray(sizes))
    n = np.asarray(sizes, dtype=np.float64)[order]
    runs = [np.asarray(values[i], dtype=np.float64) for i in order]
    _check(n, runs)
    errors = [1 - run if is_higher_better else run for run in runs]
    y = np.array([run.mean() for run in errors])
    n_seeds = np.array([len(run) for run in errors], dtype=np.float64)
    dof = float(n_seeds.sum() - len(n))
    variance = sum(float(((run - run.mean()) ** 2).sum()) for run in errors) / dof
    variance = max(variance, (1e-6 * max(1.0, float(np.abs(y).max()))) ** 2)  # equal runs: rounding is all the spread
    best = {law: fit_law(law, n, y[None], n_seeds / variance) for law in N_PARAMETERS}
    misfit = _misfit(best, len(n), dof)
    precision = n_seeds / (variance * misfit**2)
    shapes = {law: weigh_shapes(law, n, y, precision, dof=dof) for law in N_PARAMETERS}
    weights = _weights({law: each.log_evidence for law, each in shapes.items()}, int(n_seeds.sum()))
    counts = np.random.default_rng([seed, 0]).multinomial(n_samples, list(weights.values()))
    curves = tuple(
        shapes[law].sample(count, np.random.default_rng([seed, 1, number]))
        for number, (law, count) in enumerate(zip(weights, counts, strict=True))
        if count
    )
    return CurveFit(
        sizes=n,
        errors=y,
        stderr=np.sqrt(variance / n_seeds),
        n_seeds=n_seeds,
        seed_sd=math.sqrt(variance),
        test_stderr=test_stderr,
        misfit=misfit,
        weights=weights,
        best=best,
        curves=curves,
        is_higher_better=is_higher_better,
    )


def _check(n: Float64, runs: list[Float64]) -> None:
    if len(np.unique(n)) != len(n):
        raise InputError("saturation: each size must be given once, found one twice")
    if len(n) < 3:
        raise InputError(f"saturation: at least 3 sizes are needed to fit a law, got {len(n)}; measure more sizes")
    if n[0] < 1:
        raise InputError(f"saturation: sizes must be at least 1 row, got {n[0]:g}")
    empty = [f"{size:g}" for size, run in zip(n, runs, strict=True) if not len(run)]
    if empty:
        raise InputError(f"saturation: every size needs at least one run, found none at {', '.join(empty)} rows")
    if max(map(len, runs)) < 2:
        raise InputError(
            "saturation: at least one size needs two runs, because the spread between seeds is the error bar; "
            "found one run each; use more seeds"
        )
    broken = [f"{size:g}" for size, run in zip(n, runs, strict=True) if not np.isfinite(run).all()]
    if broken:
        raise InputError(f"saturation: the metric must be a finite number, got others at {', '.join(broken)} rows")


def _misfit(best: Mapping[LawName, Fits], n_sizes: int, dof: float) -> float:
    """Return by which factor the spread must be widened for the best law to meet the points.

    1 unless every law misses them by more than chance (F test of lack of fit at 5 %, Draper and
    Smith 1998, section 2.1): widening at every ratio above 1 would make the intervals of true laws
    too wide.
    """
    from scipy.stats import f as f_distribution

    free = {law: n_sizes - N_PARAMETERS[law] for law in best}
    if all(free[law] <= 0 for law in best if law != "constant"):
        return 1.0  # so few sizes that every rising law meets them: only the constant one could miss
    ratios = {law: float(fits.chi2[0]) / free[law] for law, fits in best.items() if free[law] > 0}
    if not ratios or any(ratio <= f_distribution.ppf(0.95, free[law], dof) for law, ratio in ratios.items()):
        return 1.0
    return math.sqrt(max(1.0, min(ratios.values())))


def _weights(log_evidence: Mapping[LawName, float], n_runs: int) -> dict[LawName, float]:
    """Return the weights of the laws: their likelihood, averaged over shapes, with AICc's price of height and floor.

    The shape is not counted as a parameter, because it is averaged over and not chosen; each run is
    one observation.
    """
    score = {}
    for law, value in log_evidence.items():
        k = N_LINEAR[law]
        score[law] = value - k - k * (k + 1) / max(n_runs - k - 1, 1)
    highest = max(score.values())
    raw = {law: math.exp(value - highest) for law, value in score.items()}
    total = sum(raw.values())
    return {law: value / total for law, value in raw.items()}


def _interval(values: Float64) -> Interval:
    """Return median and central interval; with observed values only, because infinite ones cannot be averaged."""
    tail = (1 - COVERAGE) / 2
    low, median, high = np.quantile(values, [tail, 0.5, 1 - tail], method="inverted_cdf")
    return Interval(float(median), float(low), float(high))


def _last_crossing(sizes: Float64, above: Float64) -> Float64:
    """Return from which size on each row of `above` stays below zero; infinite where it is not below at the end.

    Args:
        sizes: (g,) rising.
        above: (r, g).
    """
    is_above = above >= 0
    last = len(sizes) - 1 - is_above[:, ::-1].argmax(axis=1)
    found = np.full(len(above), sizes[0])
    inside = is_above.any(axis=1)
    found[inside & (last == len(sizes) - 1)] = np.inf
    rows = np.flatnonzero(inside & (last < len(sizes) - 1))
    i = last[rows]
    share = above[rows, i] / (above[rows, i] - above[rows, i + 1])
    found[rows] = sizes[i] * (sizes[i + 1] / sizes[i]) ** share
    return found


def _first_crossing(sizes: Float64, above: Float64) -> Float64:
    """Return the first size at which each row of `above` is at least zero; infinite where it never is."""
    is_above = above >= 0
    first = is_above.argmax(axis=1)
    found = np.where(is_above.any(axis=1), sizes[0], np.inf)
    rows = np.flatnonzero(is_above.any(axis=1) & (first > 0))
    i = first[rows]
    share = -above[rows, i - 1] / (above[rows, i] - above[rows, i - 1])
    found[rows] = sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share
    return found
