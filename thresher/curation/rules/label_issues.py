"""Label issues: rows whose label is probably wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import polars as pl

from thresher.curation.rule import Rows, Rule
from thresher.curation.verdict import Verdict, drop_where
from thresher.features.requirements import Requirements
from thresher.validation import option

PROBABILITY, VOTES = "class_probability", "class_votes"
FEW_ROWS, FEW_OF_A_LABEL = 200, 10


@dataclass(frozen=True, kw_only=True)
class LabelIssues(Rule):
    """Drop rows of classification data whose label is probably wrong.

    Classifiers that have not seen a row say how likely each label is. A row is named when another
    label is likelier, and at least three times as likely after a part of the labels' shares was
    divided out (trust below `max_trust`, see `measure_trust`), or as confident learning has it (see
    `find_label_issues`). Labels that differ in case, spaces or hyphens alone count as one. Where
    the classifiers know the labels badly and the one on embeddings and the one on words do not bear
    each other out, the rule says that it cannot tell, and drops nothing.

    Source: Northcutt et al. 2021, arXiv:1911.00068 (confident learning, cross-fitted
    probabilities); the trust is ours. Cost: the feature's, see `class_probability`. Needs:
    `class_probability` and `class_votes`, and so rows with labels. Fails: labels that are wrong by
    a rule that classifiers learn look right, and nothing tells them from right ones; rare hard rows
    are named too. Use it as a report first.

    Attributes:
        by: "trust" or "confident-learning".
        max_trust: rows with a label of this trust or more stay; 0.25 is three times as likely.
        max_probability: rows whose own label is more likely than this stay.
        cannot_tell: "keep" drops nothing where it cannot tell; "drop" names rows all the same.
    """

    name: ClassVar[str] = "label-issues"
    requirements: ClassVar[Requirements] = Requirements(features={PROBABILITY, VOTES})

    by: Literal["trust", "confident-learning"] = option("trust")
    max_trust: float = option(0.25, ge=0, le=1)
    max_probability: float = option(1.0, ge=0, le=1)
    cannot_tell: Literal["keep", "drop"] = option("keep")

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row whose label is probably wrong."""
        from thresher.features.labels.class_probability import class_names, given_classes
        from thresher.features.labels.label_issues import find_label_issues, join_similar_classes
        from thresher.features.labels.label_trust import ESTIMATE_ERROR, find_untrusted
        from thresher.features.labels.tellable import explain_cannot_tell

        own, names = given_classes(pool.dataset), class_names(pool.dataset)
        classes = join_similar_classes(pool.features[PROBABILITY], own, names)
        if self.by == "trust":
            issues = find_untrusted(*classes, max_trust=self.max_trust)
        else:
            issues = find_label_issues(*classes)
        issues = issues.filter(pl.col("given_probability") <= self.max_probability)
        notes: dict[str, int | float | str] = {"issues": issues.height}
        if self.by == "trust" and issues.height:
            precision = float(issues["wrong"].to_numpy().mean())
            low, high = (min(1.0, max(0.0, precision + error)) for error in ESTIMATE_ERROR)
            notes["estimated_precision"] = round(precision, 3)
            notes["estimated_precision_low"], notes["estimated_precision_high"] = round(low, 3), round(high, 3)
            notes["estimate"] = (
                f"of the {issues.height:,} rows named, between {low:.0%} and {high:.0%} have a wrong label (estimate "
                f"{precision:.0%}, a rough one: so far off were nine of ten such estimates in tests with known "
                f"errors); look at some of them before you drop them"
            )
        why = explain_cannot_tell(classes[0], classes[1], pool.features[VOTES], own)
        if why is not None:
            notes["cannot_tell"] = why
            issues = issues.clear() if self.cannot_tell == "keep" else issues
        sentences = pl.DataFrame({"row": np.arange(len(pool))}).join(
            issues.select("row", "reason"), on="row", how="left", maintain_order="left"
        )["reason"]
        notes |= _warn_few(pool.dataset.frame["response"])
        return drop_where(sentences.is_not_null().to_numpy(), "wrong-label", sentences, notes=notes)


def _warn_few(labels: pl.Series) -> dict[str, str]:
    """Return a note when there are too few rows of a label for a classifier to learn from."""
    rarest = labels.value_counts().sort("count", labels.name).row(0)
    if len(labels) >= FEW_ROWS and rarest[1] >= FEW_OF_A_LABEL:
        return {}
    return {
        "few": f"{len(labels):,} rows, {rarest[1]:,} of them labeled '{rarest[0]}', are too few to learn labels "
        f"reliably; look at what it drops, or let it only report"
    }
