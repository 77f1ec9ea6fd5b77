"""Auto: the method that is better than random rows on the user's own rows, or random rows."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from thresher.errors import SettingsError
from thresher.features.container import Features
from thresher.features.labels.label_issues import is_label_contradicted
from thresher.features.requirements import Requirements
from thresher.numeric.units import parse_seconds
from thresher.numeric.vectors import unit_rows
from thresher.selectors.contract import PoolFacts, Selector, score_rows
from thresher.selectors.pilot.arms import list_labeled_arms
from thresher.selectors.pilot.race import Race
from thresher.selectors.pilot.student import Metric
from thresher.selectors.target_similarity import TargetSimilarity
from thresher.selectors.uniform import Uniform
from thresher.subset.scores import Scores, ranked
from thresher.validation import option

PROBABILITY = "class_probability"
MOST_LABELS = 1_000  # the race fits some dozens of classifiers, and so does `class_probability`
MOST_CELLS = 10**9  # rows x labels

JudgeBy = Literal["labels", "target", "nothing", "one-label", "one-text", "many-labels", "lone-labels"]
WHY: dict[JudgeBy, str] = {
    "target": "the rows most similar to the target rows, which take turns; thresher compare measures the gain",
    "nothing": "random rows: without labels or a target, nothing shows which rows are better before a model is "
    "trained; clean the pool with thresher curate clean, give --target FILE, or try methods with thresher compare",
    "one-label": "random rows: all rows have the same label, so labels cannot judge a method; check the label column",
    "one-text": "random rows: all rows have the same text, so no method can tell them apart; check the text column",
    "many-labels": f"random rows: over {MOST_LABELS:,} labels, or over {MOST_CELLS:,} rows times labels, are "
    f"too many to judge methods; check that the label column holds classes, or merge rare ones",
    "lone-labels": "random rows: most labels occur on only one row, so held-out rows cannot judge a method; "
    "check that the label column holds classes",
}


@dataclass(frozen=True, kw_only=True)
class Auto(Selector):
    """Let methods race on the pool itself, and choose by the winner, or at random.

    Optimizes the score of a cheap student on held-out rows of the pool. The pool is divided again
    and again into candidates and held-out rows; each arm chooses the budget's share of the
    candidates, a logistic regression on the embeddings learns them, and the held-out rows judge.
    Six splits name an arm, the worse half leaving after two and after four: the best one, or
    `prototypes` wherever these splits show it better than random rows and no other arm better than
    it. Eight to sixteen fresh splits ask whether that arm is better than random rows, so that the
    effect reported is not that of a lucky winner. If it is not better beyond doubt, random rows are
    chosen. Among the arms are `prototypes`, `stratified` and `facility-location` with a quota, with
    and without rows whose label is doubtful.

    Source: Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136 (intervals over splits
    that share rows); Jamieson and Talwalkar 2016, arXiv:1502.07943 (successive halving). Cost: at
    most 6,000 rows are looked at in a split, so a few dozen fits of a regression, then the chosen
    method itself. Needs: `embedding`, `column:label`, `class_probability`. Ties: those of the
    chosen method. Equal rows: held-out rows with a near-copy among the candidates do not judge. An
    empty pool is refused. Fails: the labels that judge are the given ones, so a method that avoids
    labels that are wrong by a rule is judged by that rule; a large pool is judged at the budget's
    share of 4,000 rows, where the gain is larger than at its full size; the student reads the
    embeddings that some arms choose by.

    Labels are doubted by classifiers that have learned from the whole pool, held-out rows too. That
    did not flatter the arms that use it: with the doubt that candidates alone give, their accuracy
    differed by -0.5 to 0.7 points, never beyond doubt (`benchmarks/auto_doubt.py`).

    The decision depends on the budget: another budget may be chosen by another method, and is then
    not nested in this one. To keep to one, name it, or give `share`. `curve` and `compare` let the
    methods race at each of their sizes.

    Rows without labels cannot judge: with a target the rows most like it are taken, by
    `target-similarity` with embeddings, and without one random rows.

    Attributes:
        judge_by: what there is to decide by, or why there is nothing; it follows from the rows,
            whatever is given.
        metric: "accuracy" or "macro-f1" of the student.
        share: of the rows, at which the arms are compared; default: that of the budget.
        max_time: of the race: seconds, or 90s, 30m, 4h. No further student is trained after it, and
            what is known by then decides; the result then depends on the machine.
    """

    name: ClassVar[str] = "auto"
    ranks_only: ClassVar[bool] = True
    takes_quota: ClassVar[bool] = False

    judge_by: JudgeBy = option("labels")
    metric: Metric = "accuracy"
    share: float | None = option(None, gt=0, le=1)
    max_time: float | str | None = option(None)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has an illegal value.
        """
        super().__post_init__()
        if self.max_time is not None and not 0 < parse_seconds(self.max_time) < float("inf"):
            raise SettingsError(
                f"auto: max_time must be a time above 0, such as 90s, 30m or 4h, got {self.max_time!r}; correct it"
            )

    @property
    def requirements(self) -> Requirements:
        """What the arms and the student need, or the one method that is left."""
        if self.judge_by == "labels":
            return Requirements(features={"embedding", "column:label", PROBABILITY})
        return self._only_method.requirements

    @property
    def decides_by_budget(self) -> bool:
        """The methods race at the share of the rows that is chosen, unless `share` is given."""
        return self.judge_by == "labels" and self.share is None

    @property
    def _only_method(self) -> Selector:
        """The method where no labels can judge."""
        return TargetSimilarity(kernel="embedding") if self.judge_by == "target" else Uniform()

    def adapt(self, pool: PoolFacts) -> Auto:
        """Return the same with `judge_by` for such rows."""
        return replace(self, judge_by=_find_judge(pool))

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows by the arm that won; the others score -inf."""
        if self.judge_by == "labels":
            return self._race(features, n_ranked, rng)
        scores = score_rows(self._only_method, features, n_ranked=n_ranked, rng=rng)
        pilot: dict[str, Any] = {"chosen": scores.by, "why": WHY[self.judge_by]}
        return replace(scores, by=self.name, notes={**(scores.notes or {}), "chosen_by": scores.by}, pilot=pilot)

    def _race(self, features: Features, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank rows with labels."""
        n = features.n_rows
        own = deepcopy(rng)  # random rows are those of the method `random` with the same seed
        salt = int(rng.integers(1 << 62))
        is_doubtful = is_label_contradicted(features[PROBABILITY], features["column:label"])
        unit = Features(
            row_id=features.row_id,
            arrays={**features.arrays, "embedding": unit_rows(features["embedding"])},
            missing=features.missing,
            products=features.products,
            store=features.store,
        )
        race = Race(
            unit,
            list_labeled_arms(n),
            share=self.share or n_ranked / max(1, n),
            metric=self.metric,
            salt=salt,
            max_seconds=None if self.max_time is None else parse_seconds(self.max_time),
        )
        pilot = race.run(is_doubtful)
        ranking = pilot.chosen.rank(features, is_doubtful, n_ranked, own)
        return Scores(
            row_id=features.row_id,
            value=ranked(n, ranking),
            by=self.name,
            notes={"chosen_by": pilot.chosen.name, "n_doubtful": int(is_doubtful.sum())},
            pilot=pilot.to_json(),
        )


def _find_judge(pool: PoolFacts) -> JudgeBy:
    """Return what there is to decide by for such a pool, or why there is nothing."""
    if "target" in pool.roles:
        return "target"
    if pool.kind != "classification":
        return "nothing"
    counts = pool.label_counts
    if len(counts) < 2:
        return "one-label"
    if len(counts) > MOST_LABELS or sum(counts) * len(counts) > MOST_CELLS:
        return "many-labels"
    if 2 * counts.count(1) > sum(counts):
        return "lone-labels"
    return "labels" if pool.has_two_texts else "one-text"
