"""What the next labels are expected to bring, from the labels that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thresher.errors import InputError
from thresher.evaluation.curves.curve_fit import CurveFit, fit_curve
from thresher.evaluation.curves.interval import Interval
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.units import format_points
from thresher.numeric.vectors import unit_rows
from thresher.selectors.pilot.student import fit_student

SHARES = (0.2, 0.32, 0.45, 0.6, 0.8)  # of the labeled rows, from which classifiers learn
N_FOLDS, N_REPEATS = 5, 2
MOST_WEIGHT = 4.0  # of a labeled row that judges, in means
FEWEST = 40  # labeled rows from which anything is estimated
TOO_FEW = f"fewer than {FEWEST} labels, or one class: too few to estimate the gain from more"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a batch of labels is expected to bring.

    Attributes:
        n_labeled: labels so far.
        batch: labels to come.
        accuracy: now, and its 80 % interval; None without test rows, as labeled rows were chosen
            because they are hard.
        gain: rise of the accuracy by the batch, and its 80 % interval.
        delta: below which to stop.
        stop_at: labels at which a batch is expected to bring less; None beyond 64 times those now.
        measured_on: rows that judged: test rows, or the labeled rows that a classifier left out.
    """

    n_labeled: int
    batch: int
    accuracy: Interval | None
    gain: Interval
    delta: float
    stop_at: int | None
    measured_on: str

    @property
    def says_stop(self) -> bool:
        """Whether the batch is expected to bring less than `delta`, and surely less than twice."""
        return self.gain.median < self.delta and self.gain.high < 2 * self.delta

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        both = {"accuracy": None if self.accuracy is None else self.accuracy.to_json(), "gain": self.gain.to_json()}
        return {**asdict(self), **both, "says_stop": self.says_stop}

    def __str__(self) -> str:
        """Return the answer, then what it rests on."""
        expected = f"{100 * self.gain.median:.1f} points [{100 * self.gain.low:.1f}, {100 * self.gain.high:.1f}]"
        expected += " (80 % interval)"
        now = "" if self.accuracy is None else f"about {100 * self.accuracy.median:.0f} % now, "
        basis = f"({now}{self.n_labeled:,} labels; judged by {self.measured_on})"
        least = format_points(self.delta)
        sentence = f"the next {self.batch:,} labels are expected to raise the accuracy by {expected}"
        if self.says_stop:
            return f"stop: {sentence}, less than {least} {basis}"
        if self.gain.median < self.delta:
            return f"{sentence}, so probably less than {least}, which is not certain yet {basis}"
        later = (
            "" if self.stop_at is None else f"; beyond about {self.stop_at:,} labels, a batch adds less than {least}"
        )
        return f"{sentence}{later} {basis}"


def estimate_gain(
    vectors: Float32,
    label: Int64,
    *,
    batch: int,
    delta: float,
    stands_for: Float64 | None = None,
    test: tuple[Float32, Int64] | None = None,
    seed: int = 0,
) -> Gain | None:
    """Extrapolate the curve of classifiers on growing parts of the labeled rows; None if too few.

    Logistic regressions learn nested parts of the labeled rows, ten times in another order. Where
    there are test rows, those judge. Otherwise a fifth of the labeled rows, which none of the ten
    regressions has seen, does; those were chosen because they are hard, so each counts as often as
    unlabeled rows are nearest to it, at most four times the mean, as a stratum counts by its size.
    The same rows judge all sizes of one order, so their luck is taken out of the differences. The
    laws of `curve_fit` then give the accuracy at n and n + batch labels.

    Args:
        vectors: (m, d) of the labeled rows.
        label: (m,) classes.
        batch: labels to come.
        delta: gain of the accuracy below which to stop.
        stands_for: (m,) how many rows of the pool each stands for; None for all alike.
        test: vectors and classes (-1 for one that is not among `label`) of test rows.
        seed: of the draws.
    """
    n = len(label)
    if n < FEWEST or len(np.unique(label)) < 2:
        return None
    unit = unit_rows(vectors)
    weight = np.ones(n) if stands_for is None else np.minimum(stands_for, MOST_WEIGHT * float(np.mean(stands_for)))
    judges = None if test is None else (unit_rows(test[0]), test[1])
    sizes = [round(share * n) for share in SHARES]
    values = _measure_curves(unit, label, weight, sizes, judges, seed)
    n_judges = n if test is None else len(test[1])
    center = float(values[-1].mean())
    try:
        fit = fit_curve(
            sizes,
            values.tolist(),
            is_higher_better=True,
            test_stderr=float(np.sqrt(max(center * (1 - center), 1e-4) / n_judges)),
            seed=seed,
        )
    except InputError:  # every classifier says the same
        return None
    return Gain(
        n_labeled=n,
        batch=batch,
        accuracy=None if test is None else fit.predict(n),
        gain=fit.gain(n, batch),
        delta=delta,
        stop_at=_find_stop(fit, n, batch, delta),
        measured_on=f"{n_judges:,} test rows" if test is not None else "held-out labeled rows",
    )


def _measure_curves(
    unit: Float32, label: Int64, weight: Float64, sizes: Sequence[int], test: tuple[Float32, Int64] | None, seed: int
) -> Float64:
    """Return the accuracy of regressions on parts of the labeled rows, (sizes, orders).

    The luck of the rows that judge an order is taken out: all orders have the same mean.
    """
    n = len(label)
    values = np.zeros((len(sizes), N_FOLDS * N_REPEATS))
    counts = np.zeros(values.shape[1])
    for number in range(values.shape[1]):
        repeat, fold = divmod(number, N_FOLDS)
        dealt = np.random.default_rng([seed, repeat]).permutation(n)
        is_held_out = np.zeros(n, np.bool_)
        if test is None:
            is_held_out[dealt[fold::N_FOLDS]] = True
        order = np.random.default_rng([seed, repeat, fold + 1]).permutation(np.flatnonzero(~is_held_out))
        x, y, w = (unit[is_held_out], label[is_held_out], weight[is_held_out]) if test is None else (*test, None)
        counts[number] = 1.0 if w is None else w.sum()
        for i, size in enumerate(sizes):
            learned = order[:size]
            model = fit_student(unit[learned], label[learned])
            predicted = np.full(len(y), label[learned[0]]) if model is None else model.predict(x)
            values[i, number] = np.average(predicted == y, weights=w)
    mean = np.average(values, axis=1, weights=counts)  # (sizes,)
    centered: Float64 = values - values.mean(axis=0) + mean.mean()
    # by weight, orders do not count alike: keep the weighted mean of each size
    centered += (mean - centered.mean(axis=1))[:, None]
    return np.clip(centered, 0.0, 1.0)


def _find_stop(fit: CurveFit, n: int, batch: int, delta: float) -> int | None:
    """Return the labels at which a batch brings less than `delta`; None where that is far off."""
    size = n
    while size <= 64 * n:
        if fit.gain(size, batch).median < delta:
            return size
        size += max(batch, size // 8)
    return None
