"""How many rows are enough: the fewest that are about as good as all of them.

The question is about the largest size that was measured, the whole pool where it is affordable: the
smallest number of rows whose score is worse by at most `within`, a tolerance that the user sets and
no noise can move. Each sampled curve of the fit has its answer, and the interval is over them.

Three verdicts, each for what the data carry:

- "enough": the answer is known to a factor of two upwards, so that nobody takes too few rows, also
  by laws that fit less well (`cautious_curves`), and the plain difference to all rows has a
  standard error below twice the tolerance; where all runs score alike, so that no law says
  anything, the test rows must carry the tolerance by their number alone.
- "all": half of the rows are surely not within the tolerance.
- "cannot tell": neither; then it says how many test rows or seeds would tell, by fitting again the
  points that are expected with so little noise.

Where the points themselves say that more rows make it worse (`decline.py`), no law is asked: the
measured size that is best is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from thresher.evaluation.curves.curve_fit import CurveFit, fit_points
from thresher.evaluation.curves.decline import find_decline
from thresher.evaluation.curves.interval import Interval, summarize_samples
from thresher.evaluation.curves.last_doubling import find_last_doubling
from thresher.numeric.units import format_count, format_points

Verdict = Literal["enough", "all", "cannot tell"]

SURE = 0.95  # of the answer being at most twice the median, for "enough"
MOST_NOISE = 2.0  # standard errors of the plain difference, in tolerances, for "enough"
# the same where no run differs from another: by the rule of three (Hanley and Lippman-Hand 1983), n
# test rows without a difference leave room for 3 / n, which is 1.5 times the 2 / n of unseen rows
MOST_SILENT_NOISE = 1 / 1.5
_SILENT = 0.25  # differences up to this share of that noise, half a test row, are none
TOO_FEW, TOO_FEW_PLANNED = 2.0, 1.4  # planned runs may have bad luck, and shall tell nevertheless
_MOST_DOUBLINGS = 6  # the search for more test rows or seeds ends at 64 times those there are
_PLANNING_SAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class Enough:
    """The smallest number of rows that is about as good as all of them.

    Attributes:
        verdict: "enough", "all" (half of the rows are not enough) or "cannot tell".
        rows: median over sampled curves.
        low: lower end of the 80 % interval, rows; where `worse` is set there is none: `rows`.
        high: upper end.
        within: by how much worse the score may be than with all rows, in units of the metric.
        of: rows of "all": the largest measured size.
        is_whole_pool: `of` is every row of the pool.
        smallest: smallest measured size; fewer rows are not asked about.
        last_doubling: gain from half of `of` to `of`, by the curves that the verdict is read from,
            or as measured where these are contradicted.
        next_doubling: gain expected from twice as many rows as `of`; it is not measured.
        n_test: test rows with a value; None where that is not known.
        test_rows_needed: in all, to tell; None where as many do not help, or the verdict is known.
        more_seeds_needed: at each size, to tell; likewise.
        is_rate: the metric lies in 0..1 and its differences are points.
        is_higher_better: direction of the metric.
        n_unanswered: test rows besides `n_test`, for which no answer was generated.
        unit: what is counted: rows, or groups of a column.
        worse: by how much all rows are worse than `rows` of them, where that is beyond doubt.
        unlike_laws: the last doubling brought clearly "more" or "less" than the laws allow, so that
            `next_doubling` is not to be trusted; None where it did not.
    """

    verdict: Verdict
    rows: int
    low: int
    high: int
    within: float
    of: int
    is_whole_pool: bool
    smallest: int
    last_doubling: Interval
    next_doubling: Interval
    n_test: int | None
    test_rows_needed: int | None = None
    more_seeds_needed: int | None = None
    is_rate: bool = True
    is_higher_better: bool = True
    n_unanswered: int = 0
    unit: str = "rows"
    worse: Interval | None = None
    unlike_laws: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **asdict(self),
            "last_doubling": self.last_doubling.to_json(),
            "next_doubling": self.next_doubling.to_json(),
            "worse": None if self.worse is None else self.worse.to_json(),
        }

    @staticmethod
    def from_json(entry: dict[str, Any]) -> Enough:
        """Return the answer that `to_json` wrote."""
        names = ("last_doubling", "next_doubling", *(["worse"] if entry.get("worse") else []))
        intervals = {name: _read_interval(entry[name]) for name in names}
        # earlier versions knew rates and losses alone
        return Enough(**{"is_higher_better": entry["is_rate"], **entry, **intervals})

    def __str__(self) -> str:
        """Return the answer as a sentence."""
        return self.describe()

    def describe(self, whose: str = "", aside: str = "") -> str:
        """Return the answer as a sentence.

        Args:
            whose: the rows, as "rows chosen by herding"; empty where that goes without saying.
            aside: the same beside a number of rows, as "chosen by herding".
        """
        tolerance = self.tolerance
        everything = f"{'' if self.is_whole_pool else 'first '}{self.of:,} {self.unit}{aside and f' ({aside})'}"
        if self.worse is not None:
            median, low, high = map(self.format_number, (self.worse.median, self.worse.low, self.worse.high))
            return (
                f"More {self.unit} make it worse: {self.rows:,} of the {everything} do best of the measured "
                f"sizes, and all of them are {median}{' points' if self.is_rate else ''} [{low}, {high}] worse."
            )
        if self.verdict == "all":
            return (
                f"Half of the {everything} do not come within {tolerance} of all of them: the last doubling still "
                f"{self._describe_gain(self.last_doubling, ending='s')}."
            )
        if self.verdict == "cannot tell":
            return f"{self._describe_doubt(everything)}{self._describe_remedy()}"
        if self.high <= self.smallest:
            if self.smallest == 1:
                return f"1 of the {everything} comes within {tolerance} of all of them."
            return (
                f"{self.smallest:,} of the {everything} come within {tolerance} of all of them; "
                f"this is the smallest size measured, and fewer may do."
            )
        named = f"About {self.rows:,} {whose or self.unit} [{self.low:,}, {self.high:,}]"
        all_of_them = f"{'' if self.is_whole_pool else 'first '}{self.of:,}"
        return f"{named} of the {all_of_them} come within {tolerance} of all of them."

    def describe_next(self) -> str:
        """Return what twice the rows are expected to bring."""
        if self.worse is not None:
            return f"What {2 * self.of:,} {self.unit} would do is not known: no law describes {self.unit} that harm."
        if self.unlike_laws is not None:
            return (
                f"What {2 * self.of:,} {self.unit} would do is not known: the last doubling brought clearly "
                f"{self.unlike_laws} than any law of learning curves describes."
            )
        gain, little = self._describe_gain(self.next_doubling), self.within / 10
        if -little < self.next_doubling.low and self.next_doubling.high < little:
            named = format_points(little) if self.is_rate else f"{little:.2g}"
            gain = f"change next to nothing (less than {named})"
        return f"Doubling to {2 * self.of:,} {self.unit} is expected to {gain}."

    def _describe_doubt(self, everything: str) -> str:
        row = "answered test row" if self.n_unanswered else "test row"
        these = "these runs" if self.n_test is None else format_count(self.n_test, row)
        between = f"anywhere from {self.low:,} to {self.high:,} of the {everything}"
        if self.low == self.high:
            between = f"{self.low:,} of the {everything}, or more of them,"
        return f"Cannot tell yet: with {these}, {between} may be enough to come within {self.tolerance} of all of them"

    def _describe_remedy(self) -> str:
        remedies = []
        if self.test_rows_needed is not None:
            remedies.append(self._describe_test_rows(self.test_rows_needed))
        if self.more_seeds_needed is not None:
            remedies.append(format_count(self.more_seeds_needed, "more seed"))
        if not remedies:
            if self.n_test is None:
                return "; a larger tolerance, or more sizes and runs, would settle it."
            return "; a larger tolerance, or more test rows together with more seeds, would settle it."
        return f"; {' or '.join(remedies)} would settle it."

    def _describe_test_rows(self, needed: int) -> str:
        if not self.n_unanswered:
            return format_count(needed, "test row")
        n_known = (self.n_test or 0) + self.n_unanswered
        more = "" if needed <= n_known else f" and {format_count(needed, 'test row')}, not {n_known:,}"
        return f"{format_count(needed, 'answered test row')} (--train eval_generations={needed}{more})"

    def format_number(self, value: float) -> str:
        """Return a difference of the metric as a number: points for rates."""
        return f"{100 * value:.1f}" if self.is_rate else f"{value:.3g}"

    def _describe_gain(self, gain: Interval, *, ending: str = "") -> str:
        """Return "brings 2.1 points [1.2, 3.0]" or "lowers the loss by 0.02 [0.01, 0.03]"."""
        median, low, high = (self.format_number(value) for value in (gain.median, gain.low, gain.high))
        if self.is_rate:
            return f"bring{ending} {median} points [{low}, {high}]"
        verb = f"raise{ending} the score" if self.is_higher_better else f"lower{ending} the loss"
        return f"{verb} by {median} [{low}, {high}]"

    @property
    def tolerance(self) -> str:
        """`within` with its unit."""
        if not self.is_rate:
            return f"{self.within:.3g} of the {'score' if self.is_higher_better else 'loss'}"
        return f"{100 * self.within:.3g} point{'' if math.isclose(100 * self.within, 1) else 's'}"


def _read_interval(entry: dict[str, float | None]) -> Interval:
    return Interval(**{name: math.inf if value is None else value for name, value in entry.items()})


@dataclass(frozen=True)
class Tolerance:
    """By how much worse a score may be and still count as about as good.

    Attributes:
        amount: in units of the metric, or a share.
        is_share: the amount is a share of the score; of a rate it is points in any case.
    """

    amount: float = 0.01
    is_share: bool = True

    def resolve(self, fit: CurveFit) -> float:
        """Return the tolerance in units of the metric.

        The share is of the score at the largest size; where that may be near 0 because it has any
        sign, at least of the range between the measured sizes.
        """
        if fit.scale.is_rate or not self.is_share:
            return self.amount
        score = abs(float(np.median(fit.scale.to_metric(fit.sampled_errors([fit.sizes[-1]])))))
        return self.amount * (score if fit.scale.is_bounded else max(score, float(np.ptp(fit.errors))))


def find_enough(
    fit: CurveFit,
    *,
    within: Tolerance = Tolerance(),
    n_pool: int,
    n_test: int | None,
    n_unanswered: int = 0,
    unit: str = "rows",
) -> Enough:
    """Return the smallest number of rows that is about as good as the largest measured size.

    Args:
        fit: of the curve.
        within: by how much worse the score may be.
        n_pool: rows there are.
        n_test: test rows with a value; None where that is not known.
        n_unanswered: further test rows, which have none.
        unit: what the sizes count.
    """
    tolerance = within.resolve(fit)
    of, smallest = int(fit.sizes[-1]), int(fit.sizes[0])
    rows = summarize_samples(fit.sampled_enough_sizes(tolerance, of))
    decline = find_decline(fit, tolerance)
    verdict: Verdict = judge(fit, tolerance, of=of) if decline is None else "enough"
    if decline is not None:
        rows = Interval(decline.best, decline.best, decline.best)
    test_rows_needed, more_seeds_needed = None, None
    last = find_last_doubling(fit)
    if verdict == "cannot tell":
        if n_test is not None:
            times = _find_times(lambda times: _quieten(fit, test_rows=times), tolerance, of)
            test_rows_needed = None if times is None else _round_rows(n_test * times)
        times = _find_times(lambda times: _quieten(fit, seeds=times), tolerance, of)
        more_seeds_needed = None if times is None else math.ceil(fit.n_seeds.max() * (times - 1))
    return Enough(
        verdict=verdict,
        rows=round(rows.median),
        low=math.floor(rows.low),
        high=math.ceil(rows.high),
        within=tolerance,
        of=of,
        is_whole_pool=of >= n_pool,
        smallest=smallest,
        last_doubling=last.gain,
        next_doubling=fit.gain(of, of),
        n_test=n_test,
        test_rows_needed=test_rows_needed,
        more_seeds_needed=more_seeds_needed,
        is_rate=fit.scale.is_rate,
        is_higher_better=fit.scale.is_higher_better,
        n_unanswered=n_unanswered,
        unit=unit,
        worse=None if decline is None else decline.by,
        unlike_laws=last.contradicts,
    )


def judge(fit: CurveFit, within: float, *, of: int, too_few: float = TOO_FEW) -> Verdict:
    """Return the verdict that a fit carries.

    Args:
        fit: of the curve.
        within: tolerance, in units of the metric.
        of: all rows.
        too_few: factor by which the answer is surely not more than the median, for "enough".
    """
    samples = fit.sampled_enough_sizes(within, of)
    rows = summarize_samples(samples)
    if rows.low > of / 2:
        return "all"
    others = fit.sampled_enough_sizes(within, of, is_cautious=True)
    likely_most, perhaps_most = (float(np.quantile(each, SURE, method="inverted_cdf")) for each in (samples, others))
    is_known = likely_most <= too_few * rows.median and perhaps_most <= TOO_FEW * rows.median
    is_carried = estimate_noise(fit, rows.median) <= MOST_NOISE * within
    if is_silent(fit):
        is_carried = float(np.sqrt(fit.test_covariance.max())) <= MOST_SILENT_NOISE * within
    return "enough" if is_known and is_carried else "cannot tell"


def is_silent(fit: CurveFit) -> bool:
    """Tell whether all runs of a rate score alike: then the laws have nothing to learn from.

    What more test rows would show is bounded by their number alone. Scores that were measured
    elsewhere, of which no test rows are known, are never silent.
    """
    least = _SILENT * float(np.sqrt(fit.test_covariance.max()))
    return fit.scale.is_rate and least > 0 and max(float(np.ptp(fit.errors)), float(fit.seed_sd.max())) <= least


def estimate_noise(fit: CurveFit, rows: float) -> float:
    """Return the standard error of the plain difference to the largest size, without any law.

    It is that between the largest size and the measured ones from `rows` on, weighted by their
    precision. Where it dwarfs the tolerance, an answer would be one of the laws and not of the
    data.

    Args:
        fit: of the curve.
        rows: the answer.
    """
    covariance = np.diag(fit.seed_sd**2 / fit.n_seeds) + fit.test_covariance
    others = np.flatnonzero((fit.sizes >= rows) & (fit.sizes < fit.sizes[-1]))
    others = others if len(others) else np.array([len(fit.sizes) - 2])
    weights = 1 / np.diag(covariance)[others]
    weights = weights / weights.sum()
    variance = covariance[-1, -1] + weights @ covariance[np.ix_(others, others)] @ weights
    return fit.misfit * math.sqrt(float(variance))


def _quieten(fit: CurveFit, *, test_rows: float = 1.0, seeds: float = 1.0) -> CurveFit:
    """Return the fit that is expected with so many times the test rows, or the seeds."""
    expected = np.median(fit.sampled_errors(fit.sizes), axis=0)
    return fit_points(
        fit.sizes,
        expected,
        n_seeds=fit.n_seeds * seeds,
        # a single run's chance on each test row is in the spread between seeds, and stays there
        seed_sd=fit.seed_sd,
        dof=fit.dof * seeds,
        # what rows may hide that nobody has seen to differ falls with their number, not its root
        test_covariance=fit.test_covariance / (test_rows**2 if is_silent(fit) else test_rows),
        test_stderr=fit.test_stderr,
        scale=fit.scale,
        n_samples=_PLANNING_SAMPLES,
    )


def _find_times(quieten: Callable[[float], CurveFit], tolerance: float, of: int) -> float | None:
    """Return how many times as much would give a verdict; None where 64 times would not."""
    for power in range(1, 2 * _MOST_DOUBLINGS + 1):
        times = 2 ** (power / 2)
        if judge(quieten(times), tolerance, of=of, too_few=TOO_FEW_PLANNED) != "cannot tell":
            return float(times)
    return None


def _round_rows(n: float) -> int:
    """Return a number of rows with two digits, not less."""
    digit: int = 10 ** max(0, len(str(math.ceil(n))) - 2)
    return math.ceil(n / digit) * digit
