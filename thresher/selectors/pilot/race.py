"""The race: one stage names an arm, a second one asks fresh splits whether it beats random rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from thresher.features.container import Features
from thresher.numeric.arrays import Bool, Float32, Float64, Int64
from thresher.selectors.pilot.arms import Arm, take_rows
from thresher.selectors.pilot.splits import Split, draw_split
from thresher.selectors.pilot.statistics import Difference, Multiplier, estimate_difference, estimate_multiplier
from thresher.selectors.pilot.student import Grade, Metric, grade_student

NOMINATION_SPLITS = 6
HALVED_AFTER = (2, 4)  # splits after which the worse half of the arms leaves
LOOKS = (8, 16)  # fresh splits after which the nominee may be accepted
LEVEL = 0.05  # two-sided, shared evenly by the looks
FEWEST_HELD_OUT = 50
FAVORITE = "prototypes"  # named where it is better than random rows and no arm better than it
NOMINATION_TIME = 0.4  # of the time that is allowed
MULTIPLES = np.array([1.0, 1.5, 2.0, 3.0, 4.0])  # of the chosen rows: sizes of random choices


class Graded(NamedTuple):
    """One fresh split: the nominee's student, and those of multiples of as many random rows."""

    held_out: Int64
    ours: Grade
    control: list[Grade]


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What a race found.

    Attributes:
        chosen: the arm to use: the control unless another is better beyond doubt.
        nominee: name of the arm that was tried on fresh splits; None where no race was possible.
        metric: that decided.
        effect: of the nominee against the control, on splits that did not name it, in the metric.
        other_effect: the same in the other metric.
        multiplier: how many times as many random rows match the nominee.
        nominations: name and effect of every arm on the splits it ran, best first; these named the
            nominee and so can flatter it.
        n_chosen: rows that each arm chose.
        n_candidates: among so many.
        n_held_out: rows that judged.
        is_cut_short: the time was over before the last split.
        why: one sentence.
    """

    chosen: Arm
    nominee: str | None
    metric: Metric
    effect: Difference | None = None
    other_effect: Difference | None = None
    multiplier: Multiplier | None = None
    nominations: tuple[tuple[str, Difference], ...] = ()
    n_chosen: int = 0
    n_candidates: int = 0
    n_held_out: int = 0
    is_cut_short: bool = False
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the decision in JSON values."""
        return {
            "chosen": self.chosen.name,
            "why": self.why,
            "metric": self.metric,
            "nominee": self.nominee,
            "effect": None if self.effect is None else self.effect._asdict(),
            "other_effect": None if self.other_effect is None else self.other_effect._asdict(),
            "multiplier": None if self.multiplier is None else self.multiplier._asdict(),
            "nominations": [{"arm": name, **difference._asdict()} for name, difference in self.nominations],
            "n_chosen": self.n_chosen,
            "n_candidates": self.n_candidates,
            "n_held_out": self.n_held_out,
            "is_cut_short": self.is_cut_short,
        }


class Race:
    """Arms that choose the same share of the candidates of one split after another.

    Args:
        features: of the pool.
        arms: the first is the control.
        share: of the rows that is chosen.
        metric: that decides.
        salt: of all draws.
        max_seconds: after which no further student is trained; None for no limit.
    """

    def __init__(
        self, features: Features, arms: list[Arm], *, share: float, metric: Metric, salt: int, max_seconds: float | None
    ) -> None:
        self._features, self._arms = features, arms
        self._share, self._metric, self._salt = share, metric, salt
        self._started = time.monotonic()
        self._max_seconds = max_seconds
        self._unit: Float32 = features["embedding"]
        self._label: Int64 = np.unique(features["column:label"], return_inverse=True)[1].reshape(-1)
        self._split: Split = self._draw(0)

    def run(self, is_doubtful: Bool) -> Pilot:
        """Return the decision.

        Args:
            is_doubtful: (n,) whose label is doubtful.
        """
        self._is_doubtful = is_doubtful
        problem = self._find_problem()
        if problem:
            return self._conclude(self._arms[0], None, why=f"random rows: {problem}")
        name, nominations = self._nominate()
        if name is None:
            return self._conclude(
                self._arms[0],
                None,
                is_cut_short=True,
                why="random rows: the time ran out before any method was tried on two splits; raise max_time",
            )
        nominee = next(arm for arm in self._arms if arm.name == name)
        return self._examine(nominee, nominations)

    def _find_problem(self) -> str | None:
        """Return why no race can tell anything, or None."""
        split = self._split
        if self._share >= 1:
            return "all rows are kept, so there is nothing to select"
        if len(split.held_out) < FEWEST_HELD_OUT:
            return (
                f"too few rows are left to judge the methods: at least {FEWEST_HELD_OUT} are needed, found "
                f"{len(split.held_out)} (copies of candidates do not count)"
            )
        if self._count_chosen(split) < 2:
            return "the budget is too small to train on, so no method can be judged"
        return None

    def _nominate(self) -> tuple[str | None, list[tuple[str, Difference]]]:
        """Return the nominee, and name and effect of each arm, the best first.

        Arms that fall behind leave early, but for the favorite. No nominee where the time is over.
        """
        rows: list[Int64] = []
        gaps: dict[str, list[Float64]] = {arm.name: [] for arm in self._arms[1:]}
        running = self._arms[1:]
        for number in range(NOMINATION_SPLITS):
            if self._is_late(NOMINATION_TIME):
                break
            split = self._draw(number) if number else self._split
            control = self._grade(self._arms[0], number, split).values(self._metric)
            # an arm that the clock keeps out of this split is judged by the others
            graded = [self._grade(arm, number, split) for arm in running if not self._is_late(NOMINATION_TIME)]
            rows.append(split.held_out)
            for arm, grade in zip(running, graded, strict=False):
                gaps[arm.name].append(grade.values(self._metric) - control)
            if number + 1 in HALVED_AFTER and len(graded) == len(running):
                running.sort(key=lambda arm: -float(np.mean([gap.mean() for gap in gaps[arm.name]])))
                n_kept = max(2, -(-len(running) // 2))
                running = running[:n_kept] + [arm for arm in running[n_kept:] if arm.name == FAVORITE]
        effects = {
            name: estimate_difference(rows[: len(values)], values, LEVEL)
            for name, values in gaps.items()
            if len(values) >= 2
        }
        # the arms that ran longest come first: the others left because they were behind
        ordered = sorted(effects.items(), key=lambda pair: (-pair[1].n_splits, -pair[1].value))
        return choose_nominee(ordered, rows, gaps), ordered

    def _examine(self, nominee: Arm, nominations: list[tuple[str, Difference]]) -> Pilot:
        """Ask splits that did not name the nominee whether it is better than the control."""
        grades: list[Graded] = []
        level = LEVEL / len(LOOKS)
        is_cut_short = False
        for number in range(max(LOOKS)):
            if is_cut_short := self._is_late():
                break
            split = self._draw(NOMINATION_SPLITS + number)
            ours = self._grade(nominee, NOMINATION_SPLITS + number, split)
            grades.append(Graded(split.held_out, ours, self._grade_control(number, split)))
            if number + 1 in LOOKS and self._compare(grades, self._metric, level).low > 0:
                break
        if len(grades) < 2:
            return self._conclude(
                self._arms[0],
                nominee.name,
                nominations=tuple(nominations),
                is_cut_short=True,
                why=f"random rows: the time ran out before {nominee.name}, the best method so far, was tried on "
                f"two new splits; raise max_time",
            )
        # the clock may move the last look to an earlier split: there are no more looks for it
        is_better = self._compare(grades, self._metric, level).low > 0
        other: Metric = "macro-f1" if self._metric == "accuracy" else "accuracy"
        effect = self._compare(grades, self._metric, LEVEL)
        multiplier = self._multiply(grades)
        why = _explain(nominee.name, effect, self._metric, multiplier, is_better=is_better)
        if is_cut_short:
            why = f"{why} (the time ran out after {len(grades)} of {max(LOOKS)} fresh splits)"
        return self._conclude(
            nominee if is_better else self._arms[0],
            nominee.name,
            effect=effect,
            other_effect=self._compare(grades, other, LEVEL),
            multiplier=multiplier,
            nominations=tuple(nominations),
            is_cut_short=is_cut_short,
            why=why,
        )

    def _multiply(self, grades: list[Graded]) -> Multiplier | None:
        sizes = MULTIPLES[: min(len(graded.control) for graded in grades)]
        if len(sizes) < 2:
            return None
        control = np.array(
            [[grade.values(self._metric).mean() for grade in graded.control[: len(sizes)]] for graded in grades]
        )
        ours = np.array([graded.ours.values(self._metric).mean() for graded in grades])
        return estimate_multiplier(sizes, control, ours, np.random.default_rng(self._salt))

    def _compare(self, grades: list[Graded], metric: Metric, level: float) -> Difference:
        """Return the nominee's effect: the first grade of the control is that of as many rows."""
        gaps = [graded.ours.values(metric) - graded.control[0].values(metric) for graded in grades]
        return estimate_difference([graded.held_out for graded in grades], gaps, level)

    def _conclude(self, chosen: Arm, nominee: str | None, *, why: str, **facts: Any) -> Pilot:
        return Pilot(
            chosen=chosen,
            nominee=nominee,
            metric=self._metric,
            n_chosen=self._count_chosen(self._split),
            n_candidates=len(self._split.candidates),
            n_held_out=len(self._split.held_out),
            why=why,
            **facts,
        )

    def _is_late(self, share: float = 1.0) -> bool:
        """Return whether a share of the time is over."""
        spent = time.monotonic() - self._started
        return self._max_seconds is not None and spent > share * self._max_seconds

    def _draw(self, number: int) -> Split:
        return draw_split(self._unit, self._label, np.random.default_rng([self._salt, number]))

    def _count_chosen(self, split: Split) -> int:
        return round(self._share * len(split.candidates))

    def _grade(self, arm: Arm, number: int, split: Split) -> Grade:
        """Return the grade of a student who learned what an arm chose."""
        return self._judge(self._rank(arm, number, split, self._count_chosen(split)), split)

    def _grade_control(self, number: int, split: Split) -> list[Grade]:
        """Return the grades of random rows, as many as were chosen and multiples of them."""
        n_chosen = self._count_chosen(split)
        sizes = [round(multiple * n_chosen) for multiple in MULTIPLES]
        sizes = [size for size in sizes if size <= len(split.candidates)]
        ranking = self._rank(self._arms[0], NOMINATION_SPLITS + number, split, sizes[-1])
        return [self._judge(ranking[:size], split) for size in sizes]

    def _rank(self, arm: Arm, number: int, split: Split, n_ranked: int) -> Int64:
        rng = np.random.default_rng([self._salt, number, self._arms.index(arm) + 1])
        pool = take_rows(self._features, split.candidates)
        return split.candidates[arm.rank(pool, self._is_doubtful[split.candidates], n_ranked, rng)]

    def _judge(self, rows: Int64, split: Split) -> Grade:
        held_out = split.held_out
        return grade_student(self._unit[rows], self._label[rows], self._unit[held_out], self._label[held_out])


def choose_nominee(
    ordered: list[tuple[str, Difference]], rows: list[Int64], gaps: dict[str, list[Float64]]
) -> str | None:
    """Return the arm to try on fresh splits: the favorite wherever it is as good, else the leader.

    Six splits rank arms that are close by chance, and by a student that reads the embeddings they
    chose by. The favorite is what training itself has borne out, so it is named if these splits
    show it better than the control and no leader better than it.

    Args:
        ordered: name and effect of each arm, the best first.
        rows: of each split, (h,) the held-out rows.
        gaps: by arm, of each split it ran, (h,) its values less the control's.
    """
    if not ordered:
        return None
    leader, effect = ordered[0]
    favorite = dict(ordered).get(FAVORITE)
    if leader == FAVORITE or favorite is None or favorite.n_splits < effect.n_splits or favorite.low <= 0:
        return leader
    between = [ours - theirs for ours, theirs in zip(gaps[leader], gaps[FAVORITE], strict=True)]
    return leader if estimate_difference(rows[: len(between)], between, LEVEL).low > 0 else FAVORITE


def _explain(name: str, effect: Difference, metric: Metric, multiplier: Multiplier | None, *, is_better: bool) -> str:
    """Return the decision in one sentence."""
    gain = f"{100 * effect.value:+.1f} points of {metric} [{100 * effect.low:+.1f}, {100 * effect.high:+.1f}]"
    if not is_better:
        doubt = ", too little for a test that looks twice" if effect.low > 0 else ""
        best = f"the most promising, {name}, has {gain} on your held-out rows{doubt}"
        return f"random rows: no method is significantly better; {best}"
    sentence = f"{name}: better than random rows by {gain} on your held-out rows"
    if multiplier is None:
        return sentence
    return f"{sentence}; the same score would take {multiplier}"
