"""Label issues: rows whose label is probably wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.curation.rule import Rows, Rule
from thresher.curation.verdict import Verdict, drop_where
from thresher.features.requirements import Requirements
from thresher.validation import option

PROBABILITY = "class_probability"
FEW_ROWS, FEW_OF_A_LABEL = 200, 10


@dataclass(frozen=True, kw_only=True)
class LabelIssues(Rule):
    """Drop rows of classification data whose label is probably wrong, by confident learning.

    Classifiers that have not seen a row say how likely each label is; a row is named when some
    other label is at least as likely as for the average row of that label (see
    `find_label_issues`). Labels that differ in case, spaces or hyphens alone count as one.

    Source: Northcutt et al. 2021, arXiv:1911.00068. Cost: the feature's, see `class_probability`.
    Needs: `class_probability`, and so rows with labels. Fails: labels that are wrong by a rule, and
    classes most of whose rows are wrong; rare hard rows are named too. Use it as a report first.

    Attributes:
        max_probability: rows whose own label is more likely than this stay.
    """

    name: ClassVar[str] = "label-issues"
    requirements: ClassVar[Requirements] = Requirements(features={PROBABILITY})

    max_probability: float = option(1.0, ge=0, le=1)

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row whose label is probably wrong."""
        from thresher.features.labels.class_probability import class_names, given_classes
        from thresher.features.labels.label_issues import find_label_issues, join_similar_classes

        classes = join_similar_classes(
            pool.features[PROBABILITY], given_classes(pool.dataset), class_names(pool.dataset)
        )
        issues = find_label_issues(*classes).filter(pl.col("given_probability") <= self.max_probability)
        sentences = pl.DataFrame({"row": np.arange(len(pool))}).join(
            issues.select("row", "reason"), on="row", how="left", maintain_order="left"
        )["reason"]
        notes: dict[str, int | float | str] = {"issues": issues.height, **_warn_few(pool.dataset.frame["response"])}
        return drop_where(sentences.is_not_null().to_numpy(), "wrong-label", sentences, notes=notes)


def _warn_few(labels: pl.Series) -> dict[str, str]:
    """Return a note when there are too few rows of a label for a classifier to learn from."""
    rarest = labels.value_counts().sort("count", labels.name).row(0)
    if len(labels) >= FEW_ROWS and rarest[1] >= FEW_OF_A_LABEL:
        return {}
    return {
        "few": f"{len(labels):,} rows, {rarest[1]:,} of them labeled '{rarest[0]}', are few to learn labels from; "
        "look at what it drops, or let it report only"
    }
