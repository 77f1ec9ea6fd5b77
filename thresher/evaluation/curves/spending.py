"""Rows of several kinds for the same money: which kind is best, and where that changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thresher.evaluation.curves.curve_fit import CurveFit
from thresher.evaluation.curves.interval import Interval, summarize_samples
from thresher.numeric.arrays import Float64
from thresher.numeric.units import format_count

SURE = 0.8  # probability of being best from which a kind is named without reserve
Z_SURE = 0.8416  # of the normal distribution, for that probability
PER_OCTAVE = 16  # amounts of money looked at per doubling
MOST_SEEDS = 50  # more runs than that are not advised


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of rows that money buys.

    Attributes:
        name: of it.
        fit: error by number of rows.
        price: of one row, above 0.
        fixed: spent before the first row, as for a teacher and the labels that it learned from.
    """

    name: str
    fit: CurveFit
    price: float
    fixed: float = 0.0

    def count_rows(self, money: float) -> float:
        """Return the rows that an amount buys; 0 where it does not reach for one."""
        rows = (money - self.fixed) / self.price
        # 0.3 buys three rows of 0.1, though floats have 2.9999999999999996
        rows = round(rows) if math.isclose(rows, round(rows), rel_tol=1e-9) else rows
        return rows if rows >= 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What an amount of money buys.

    Attributes:
        money: the amount.
        best: kind with the lowest expected error; None where no kind is affordable.
        rows: name -> rows that it buys.
        score: name -> the metric expected, with its 80 % interval.
        chance: name -> probability that it is the best kind.
        regret: expected loss of the metric by taking `best` where another kind is better.
        is_sure: `best` is the best kind with a probability of at least 0.8.
        advice: what would tell the kinds apart, or "".
        is_beyond: kinds of which fewer rows are bought than half of the fewest that were measured,
            or more than twice the most.
    """

    money: float
    best: str | None
    rows: Mapping[str, int]
    score: Mapping[str, Interval]
    chance: Mapping[str, float]
    regret: float
    is_sure: bool
    advice: str
    is_beyond: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "score": {name: each.to_json() for name, each in self.score.items()}}


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where the best kind changes.

    Attributes:
        before: best below the amount.
        after: best above it.
        money: the amount, with its 80 % interval over sampled curves; infinite where samples do not
            cross in the range.
    """

    before: str
    after: str
    money: Interval

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "money": self.money.to_json()}


def compare_kinds(kinds: Sequence[Kind], money: float, *, seed: int = 0) -> Offer:
    """Say what an amount of money is best spent on.

    Curves of different kinds are sampled independently: nothing ties their errors but the test
    rows, whose luck is not counted.

    Args:
        kinds: at least one.
        money: the amount.
        seed: of the pairing of samples.
    """
    rows = {kind.name: kind.count_rows(money) for kind in kinds}
    affordable = [kind for kind in kinds if rows[kind.name]]
    whole = {name: math.floor(n) for name, n in rows.items()}
    if not affordable:
        none: dict[str, float] = dict.fromkeys(rows, 0.0)
        return Offer(
            money=money,
            best=None,
            rows=whole,
            score={},
            chance=none,
            regret=0.0,
            is_sure=False,
            advice="",
            is_beyond=(),
        )
    errors = _sample_errors(affordable, [money], seed)[:, :, 0]  # (kinds, samples)
    best = int(errors.mean(axis=1).argmin())
    winners = np.bincount(errors.argmin(axis=0), minlength=len(affordable)) / errors.shape[1]
    chance = {kind.name: float(share) for kind, share in zip(affordable, winners, strict=True)}
    return Offer(
        money=money,
        best=affordable[best].name,
        rows=whole,
        score={
            kind.name: summarize_samples(kind.fit.scale.to_metric(values + kind.fit.scale.offset))
            for kind, values in zip(affordable, errors, strict=True)
        },
        chance={name: chance.get(name, 0.0) for name in rows},
        regret=float((errors[best] - errors.min(axis=0)).mean()),
        is_sure=bool(winners[best] >= SURE),
        advice="" if winners[best] >= SURE else _advise(affordable, errors, best, rows),
        is_beyond=tuple(
            kind.name for kind in affordable if not kind.fit.sizes[0] / 2 <= rows[kind.name] <= 2 * kind.fit.sizes[-1]
        ),
    )


def find_crossings(kinds: Sequence[Kind], low: float, high: float, *, seed: int = 0) -> list[Crossing]:
    """Return where the best kind changes between two amounts of money, by the expected errors.

    Args:
        kinds: at least one.
        low: least amount, above 0.
        high: most.
        seed: of the pairing of samples.
    """
    n = max(2, math.ceil(PER_OCTAVE * math.log2(high / low)) + 1)
    money = np.geomspace(low, high, n)
    errors = _sample_errors(kinds, money, seed)  # (kinds, samples, money)
    is_affordable = np.isfinite(errors[:, 0])  # (kinds, money)
    expected = np.where(is_affordable, np.where(np.isfinite(errors), errors, 0).mean(axis=1), np.inf)
    best = expected.argmin(axis=0)
    best[~is_affordable.any(axis=0)] = -1
    crossings = []
    for i in np.flatnonzero((best[1:] != best[:-1]) & (best[:-1] >= 0)):
        a, b = int(best[i]), int(best[i + 1])
        each = _cross_samples(errors[a] - errors[b], money)
        crossings.append(Crossing(before=kinds[a].name, after=kinds[b].name, money=summarize_samples(each)))
    return crossings


def _cross_samples(gap: Float64, money: Float64) -> Float64:
    """Return where each sample's gap, (samples, money), turns above 0 for good; inf where never."""
    usable = np.isfinite(gap).all(axis=0)
    first = int(np.argmax(usable))
    gap, money = gap[:, first:], money[first:]
    is_worse = gap > 0
    # the last amount at which the first kind is not worse
    last = gap.shape[1] - 1 - np.argmax(~is_worse[:, ::-1], axis=1)
    crossed = np.full(len(gap), np.inf)
    always = is_worse.all(axis=1)
    crossed[always] = money[0]
    between = np.flatnonzero(~always & (last < gap.shape[1] - 1))
    i = last[between]
    here, there = gap[between, i], gap[between, i + 1]
    share = -here / (there - here)
    crossed[between] = np.exp(np.log(money[i]) + share * (np.log(money[i + 1]) - np.log(money[i])))
    return crossed


def _sample_errors(kinds: Sequence[Kind], money: Sequence[float] | Float64, seed: int) -> Float64:
    """Return the error of each kind's sampled curves at each amount, (kinds, samples, money)."""
    tables = []
    for kind in kinds:
        rows = np.array([kind.count_rows(float(amount)) for amount in money])
        # kinds may have scales of their own: without the offset, errors are the metric itself,
        # turned
        errors = kind.fit.sampled_errors(np.maximum(rows, 1.0)) - kind.fit.scale.offset
        tables.append(np.where(rows > 0, errors, np.inf))
    n = min(len(table) for table in tables)
    rng = np.random.default_rng(seed)
    return np.stack([table[rng.permutation(len(table))[:n]] for table in tables])


def _advise(kinds: Sequence[Kind], errors: Float64, best: int, rows: Mapping[str, float]) -> str:
    """Say which runs would tell the two best kinds apart."""
    order = np.argsort(errors.mean(axis=1))
    other = int(order[1] if order[0] == best else order[0])
    gap = abs(float(errors[best].mean() - errors[other].mean()))
    spread = float(np.hypot(errors[best].std(), errors[other].std()))
    doubtful = kinds[best] if errors[best].std() >= errors[other].std() else kinds[other]
    there = int(doubtful.fit.n_seeds.max())
    names = f"{kinds[best].name} and {kinds[other].name}"
    if gap <= 0 or (needed := math.ceil(there * (Z_SURE * spread / gap) ** 2) - there) > MOST_SEEDS:
        return f"{names} are about as good: no affordable number of runs would tell them apart"
    size = max(1, round(min(rows[doubtful.name], 2 * float(doubtful.fit.sizes[-1]))))
    runs = format_count(max(1, needed), "more run")
    return f"cannot tell {names} apart yet: {runs} of about {size:,} {doubtful.name} rows would show which is better"
