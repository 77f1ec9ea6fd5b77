"""The laws of a learning curve, averaged: what the score is expected to be at any number of rows.

The laws of `laws.py` are averaged (Hoeting et al. 1999, doi:10.1214/ss/1009212519): each counts by
its likelihood, averaged over all of its shapes, with AICc's penalty for height and floor (Burnham
and Anderson 2002, section 2.9). Curves are sampled in proportion to the weights, from every shape
that the points allow. Why not the best shape and a bootstrap around it: decision 0008.

A point errs by its seeds and by the test rows. The spread between seeds is a power of the size,
estimated from all sizes together (`seed_spread.py`). The test rows are the same at every size, so
that their luck cancels where sizes are compared, but for rows that some sizes answer by chance and
others do not: that part is the covariance over test rows (`row_noise.py`), relative to the largest
size. Where every law misses the points by more than all that, the spread is widened to fit (Birge
1932, doi:10.1103/PhysRev.40.207).

All that holds if one of the laws is the true one, and none need be. Where an error would be costly,
`cautious_curves` are asked: the weights of the laws are raised to a power below one, so that no law
wins by a little better fit alone (generalized Bayes, Gruenwald and van Ommen 2017,
doi:10.1214/17-BA1085).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from thresher.errors import InputError
from thresher.evaluation.curves.crossing import find_crossing_or_zero, find_first_crossing
from thresher.evaluation.curves.error_scale import ErrorScale, choose_scale
from thresher.evaluation.curves.interval import Interval, summarize_samples
from thresher.evaluation.curves.laws import N_LINEAR, N_PARAMETERS, Fits, LawName, ShapeWeights, fit_law, weigh_shapes
from thresher.evaluation.curves.seed_spread import estimate_seed_variance
from thresher.numeric.arrays import Float64

# power of the laws' weights in `cautious_curves`: 1 would trust that one of the laws is true
CAUTION = 0.4
_HORIZON = 64  # the search covers sizes up to this many times the largest one
_PER_OCTAVE = 16  # sizes per doubling on the search grid
_MOST_DOF = 1e4  # beyond, Student's t is the normal distribution


@dataclass(frozen=True)
class FallingCurves:
    """Sampled curves without those of the constant law.

    Attributes:
        likely: as `CurveFit.curves`.
        cautious: as `CurveFit.cautious_curves`.
    """

    likely: tuple[Fits, ...]
    cautious: tuple[Fits, ...]


@dataclass(frozen=True)
class CurveFit:
    """A learning curve with its laws.

    Attributes:
        sizes: (m,) measured sizes, rising.
        errors: (m,) mean error over seeds, see `scale`.
        n_seeds: (m,) runs behind each point.
        seed_sd: (m,) standard deviation between seeds at each size.
        dof: degrees of freedom of `seed_sd`.
        test_covariance: (m, m) of the points over test rows, relative to the largest size.
        test_stderr: standard error of the metric over test rows, which all points share.
        misfit: factor by which the spread was widened because no law fits the points; 1 where one
            does.
        weights: of the laws, summing to 1.
        best: each law fitted to the points.
        curves: sampled curves that the points allow, per law.
        cautious_curves: the same with the weights of the laws to a power below one, so that a law
            counts that fits less well.
        falling: as many curves again of each kind, but of the constant law: where that law takes
            nearly all of the weight, few others are left among `curves`.
        scale: of the errors.
    """

    sizes: Float64
    errors: Float64
    n_seeds: Float64
    seed_sd: Float64
    dof: float
    test_covariance: Float64
    test_stderr: float
    misfit: float
    weights: Mapping[LawName, float]
    best: Mapping[LawName, Fits]
    curves: tuple[Fits, ...]
    cautious_curves: tuple[Fits, ...]
    falling: FallingCurves
    scale: ErrorScale

    def sampled_errors(self, sizes: ArrayLike, *, is_falling: bool = False, is_cautious: bool = False) -> Float64:
        """Return the error of every sampled curve at each size: (samples, m).

        Args:
            sizes: (m,) rows.
            is_falling: without the constant law.
            is_cautious: of `cautious_curves`.
        """
        likely, cautious = self.curves, self.cautious_curves
        if is_falling:
            likely, cautious = self.falling.likely, self.falling.cautious
        return np.concatenate([fits.errors(sizes) for fits in (cautious if is_cautious else likely)])

    def predict(self, size: float, *, same_test: bool = False) -> Interval:
        """Return the metric expected at a size.

        Args:
            size: rows.
            same_test: on these very test rows; otherwise on any rows like them, which is less
                certain the fewer there are.
        """
        errors = self.sampled_errors([size])[:, 0]
        return self._metric_interval(errors if same_test else errors + self._test_noise(len(errors)))

    def asymptote(self) -> Interval:
        """Return the metric expected of endless rows, on any test rows like these."""
        floor = np.concatenate([fits.c for fits in self.curves])
        return self._metric_interval(floor + self._test_noise(len(floor)))

    def gain(self, size: float, more: float, *, is_falling: bool = False) -> Interval:
        """Return how much better the metric gets by `more` rows on top of `size`.

        Args:
            size: rows.
            more: further rows.
            is_falling: leave out the curves of the constant law.
        """
        errors = self.sampled_errors([size, size + more], is_falling=is_falling)
        return summarize_samples(errors[:, 0] - errors[:, 1])

    def rows_needed(self, target: float) -> Interval:
        """Return the rows needed for a value of the metric.

        They are infinite where it is out of reach, and 0 where the smallest measured size is more
        than enough.
        """
        sizes = self._grid()
        errors = self.sampled_errors(sizes)
        errors += self._test_noise(len(errors))[:, None]
        return summarize_samples(find_crossing_or_zero(sizes, float(self.scale.to_error(target)) - errors))

    def equivalent_rows(self, other: CurveFit, size: int) -> Interval:
        """Return how many rows on this curve reach what another curve reaches at a size.

        Samples of the two are paired at random. The rows are infinite where this curve never gets
        there, and 0 where its smallest measured size is better.
        """
        reached = other.sampled_errors([size])[:, 0] - other.scale.offset + self.scale.offset
        sizes = self._grid()
        errors = self.sampled_errors(sizes)
        n = min(len(reached), len(errors))
        shuffled = np.random.default_rng(0).permutation(len(reached))[:n]
        return summarize_samples(find_crossing_or_zero(sizes, reached[shuffled, None] - errors[:n]))

    @property
    def stderr(self) -> Float64:
        """Standard error of each point over seeds, and over test rows against the largest size."""
        stderr: Float64 = np.sqrt(self.seed_sd**2 / self.n_seeds + np.diag(self.test_covariance))
        return stderr

    def sampled_enough_sizes(self, within: float, reference: float, *, is_cautious: bool = False) -> Float64:
        """Return the smallest size of each sampled curve that is within so much of a reference.

        Curves of the constant law are left out: that further rows bring nothing at all is not known
        before it was measured, and few noisy points would otherwise pass for a flat curve.

        Args:
            within: difference of the error that is allowed, in units of the metric.
            reference: size that the others are compared with.
            is_cautious: of `cautious_curves`.

        Returns:
            (samples,) rows, from the smallest measured size up to the reference.
        """
        octaves = max(1, math.ceil(math.log2(reference / self.sizes[0])))
        sizes = np.geomspace(self.sizes[0], reference, octaves * _PER_OCTAVE + 1)
        errors = self.sampled_errors(sizes, is_falling=True, is_cautious=is_cautious)
        # at the reference itself the difference is 0, so that every curve crosses
        rows: Float64 = np.minimum(find_first_crossing(sizes, within - (errors - errors[:, -1:])), reference)
        return rows

    def _grid(self) -> Float64:
        """Return sizes from the smallest measured one up, doubling every _PER_OCTAVE places."""
        octaves = math.ceil(math.log2(_HORIZON * self.sizes[-1] / self.sizes[0]))
        grid: Float64 = self.sizes[0] * 2.0 ** (np.arange(octaves * _PER_OCTAVE + 1) / _PER_OCTAVE)
        return grid

    def _test_noise(self, n: int) -> Float64:
        """Return how far the error on other test rows may be from that on these: (n,) samples."""
        noise: Float64 = np.random.default_rng(1).normal(0, self.test_stderr, n)
        return noise

    def _metric_interval(self, errors: Float64) -> Interval:
        return summarize_samples(self.scale.to_metric(errors))  # noise may exceed the range


def fit_curve(
    sizes: Sequence[int],
    values: Sequence[Sequence[float]],
    *,
    is_higher_better: bool,
    scale: ErrorScale | None = None,
    test_stderr: float = 0.0,
    test_covariance: ArrayLike | None = None,
    n_samples: int = 1000,
    seed: int = 0,
) -> CurveFit:
    """Fit the laws to the runs of a learning curve.

    Args:
        sizes: (m,) rows of each point, at least 3 different ones.
        values: the metric of each run, per size; at least one size with two runs.
        is_higher_better: direction of the metric, whatever values it has.
        scale: of its errors; None for that of these values. Curves that are compared need one.
        test_stderr: standard error of the metric over test rows, where all runs share them: it
            widens predictions for other rows like them, but not differences between sizes.
        test_covariance: (m, m) covariance over test rows of the differences to the largest size, as
            `estimate_test_covariance` returns it; None for none.
        n_samples: curves to sample.
        seed: of the samples.

    Raises:
        InputError: too few sizes or runs, or a value that is not finite.
    """
    order = np.argsort(np.asarray(sizes))
    n = np.asarray(sizes, dtype=np.float64)[order]
    runs = [np.asarray(values[i], dtype=np.float64) for i in order]
    _check(n, runs)
    # one point per size: mean error over seeds
    scale = choose_scale(np.concatenate(runs), is_higher_better=is_higher_better) if scale is None else scale
    errors = [scale.to_error(run) for run in runs]
    y = np.array([run.mean() for run in errors])
    n_seeds = np.array([len(run) for run in errors], dtype=np.float64)
    variance, dof = estimate_seed_variance(n, errors)
    shared = np.zeros((len(n), len(n))) if test_covariance is None else np.asarray(test_covariance, np.float64)
    return fit_points(
        n,
        y,
        n_seeds=n_seeds,
        seed_sd=np.sqrt(variance),
        dof=dof,
        test_covariance=shared[np.ix_(order, order)],
        test_stderr=test_stderr,
        scale=scale,
        n_samples=n_samples,
        seed=seed,
    )


def fit_points(
    sizes: Float64,
    errors: Float64,
    *,
    n_seeds: Float64,
    seed_sd: Float64,
    dof: float,
    test_covariance: Float64,
    test_stderr: float,
    scale: ErrorScale,
    n_samples: int = 1000,
    seed: int = 0,
) -> CurveFit:
    """Fit the laws to points whose noise is known.

    Args:
        sizes: (m,) rising.
        errors: (m,) as in `CurveFit`, like all the following.
        n_seeds: (m,) runs behind each point.
        seed_sd: (m,) standard deviation between seeds at each size.
        dof: its degrees of freedom.
        test_covariance: (m, m) of the points over test rows.
        test_stderr: of the metric over test rows.
        scale: of the errors.
        n_samples: curves to sample.
        seed: of the samples.
    """
    covariance = (between_seeds := np.diag(seed_sd**2 / n_seeds)) + test_covariance
    # the part over test rows is known from many rows: the more of it, the surer the covariance
    dof_of_all = min(dof * float(np.trace(covariance) / np.trace(between_seeds)) ** 2, _MOST_DOF)
    precision = np.linalg.inv(covariance)
    best = {law: fit_law(law, sizes, errors[None], precision) for law in N_PARAMETERS}
    misfit = _misfit(best, len(sizes), dof_of_all)
    widened = precision / misfit**2  # where no law fits within that spread
    # every law with all of its shapes, weighted by likelihood, shares out the sampled curves
    shapes = {law: weigh_shapes(law, sizes, errors, widened, dof=dof_of_all) for law in N_PARAMETERS}
    weights, falling = (
        _weights({law: each.log_evidence for law, each in shapes.items() if law not in left_out}, int(n_seeds.sum()))
        for left_out in ((), ("constant",))
    )

    def sample(weights: Mapping[LawName, float], power: float, *stream: int) -> tuple[Fits, ...]:
        return _sample_curves(shapes, weights, power, n_samples, (seed, *stream))

    curves, cautious = sample(weights, 1.0), sample(weights, CAUTION, 2)
    return CurveFit(
        sizes=sizes,
        errors=errors,
        n_seeds=n_seeds,
        seed_sd=seed_sd,
        dof=dof,
        test_covariance=test_covariance,
        test_stderr=test_stderr,
        misfit=misfit,
        weights=weights,
        best=best,
        curves=curves,
        cautious_curves=cautious,
        falling=FallingCurves(
            likely=curves if _is_falling(curves) else sample(falling, 1.0, 3),
            cautious=cautious if _is_falling(cautious) else sample(falling, CAUTION, 4),
        ),
        scale=scale,
    )


def _sample_curves(
    shapes: Mapping[LawName, ShapeWeights],
    weights: Mapping[LawName, float],
    power: float,
    n_samples: int,
    stream: Sequence[int],
) -> tuple[Fits, ...]:
    """Return curves of the laws in proportion to their weights, raised to a power."""
    shares = np.array(list(weights.values())) ** power
    counts = np.random.default_rng([*stream, 0]).multinomial(n_samples, shares / shares.sum())
    return tuple(
        shapes[law].sample(count, np.random.default_rng([*stream, 1, number]))
        for number, (law, count) in enumerate(zip(weights, counts, strict=True))
        if count
    )


def _is_falling(curves: Sequence[Fits]) -> bool:
    return all(fits.law != "constant" for fits in curves)


def _check(n: Float64, runs: list[Float64]) -> None:
    if len(np.unique(n)) != len(n):
        raise InputError("curve: each size must be given once, found one twice")
    if len(n) < 3:
        raise InputError(f"curve: fitting a law needs at least 3 sizes, got {len(n)}; measure more sizes")
    if n[0] < 1:
        raise InputError(f"curve: sizes must be at least 1 row, got {n[0]:g}")
    empty = [f"{size:g}" for size, run in zip(n, runs, strict=True) if not len(run)]
    if empty:
        raise InputError(f"curve: every size needs at least one run, found none at {', '.join(empty)} rows")
    if max(map(len, runs)) < 2:
        raise InputError(
            "curve: at least one size needs two runs, because the error bars come from the spread between "
            "seeds; found one run each; use more seeds"
        )
    broken = [f"{size:g}" for size, run in zip(n, runs, strict=True) if not np.isfinite(run).all()]
    if broken:
        raise InputError(f"curve: the metric must be a finite number, got others at {', '.join(broken)} rows")


def _misfit(best: Mapping[LawName, Fits], n_sizes: int, dof: float) -> float:
    """Return by which factor the spread must be widened for the best law to fit the points.

    1 unless every law misses them by more than chance (F test of lack of fit at 5 %, Draper and
    Smith 1998, section 2.1): widening at every ratio above 1 would make the intervals of true laws
    too wide.
    """
    from scipy.stats import f as f_distribution

    free = {law: n_sizes - N_PARAMETERS[law] for law in best}
    if all(free[law] <= 0 for law in best if law != "constant"):
        return 1.0  # every falling law fits so few sizes exactly: only the constant one misses
    # chi2 per degree of freedom of each law: about 1 where the law is right
    ratios = {law: float(fits.chi2[0]) / free[law] for law, fits in best.items() if free[law] > 0}
    if not ratios or any(ratio <= f_distribution.ppf(0.95, free[law], dof) for law, ratio in ratios.items()):
        return 1.0
    return math.sqrt(max(1.0, min(ratios.values())))


def _weights(log_evidence: Mapping[LawName, float], n_runs: int) -> dict[LawName, float]:
    """Return the weights of the laws: their likelihood, averaged over shapes, with AICc's penalty.

    The penalty counts height and floor, but not the shape, which is averaged over and not chosen;
    each run is one observation.
    """
    score = {}
    for law, value in log_evidence.items():
        k = N_LINEAR[law]
        score[law] = value - k - k * (k + 1) / max(n_runs - k - 1, 1)
    highest = max(score.values())
    raw = {law: math.exp(value - highest) for law, value in score.items()}
    total = sum(raw.values())
    return {law: value / total for law, value in raw.items()}
