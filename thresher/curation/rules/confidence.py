"""Confidence: the CLEAR filter, rows whose answer the model does not trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.curation.rule import Rows, Rule
from thresher.curation.verdict import Verdict
from thresher.features.requirements import Requirements
from thresher.validation import option

CONFIDENCE = "confidence"


@dataclass(frozen=True, kw_only=True)
class Confidence(Rule):
    """Drop rows whose given answer has a low confidence.

    A row stays when its confidence is at least gamma: a threshold, or a quantile of the confidences
    of the pool. A row without a confidence stays, with its reason as a finding.

    Source: CLEAR's Auto-Filter, Chen and Mueller 2024, arXiv:2403.12776, where gamma is the median
    (quantile=0.5). The default drops a twentieth: on labels given by rules the surest 95 % trained
    better than as many random rows by 1.9 and 1.3 points of accuracy, the surest half by 1.1 and
    1.5, at the price of half of the rows (`benchmarks/label_issues.py`). Cost: the feature's, see
    `confidence`. Needs: `confidence`. Fails: a weak model distrusts answers that are hard and
    right, just those it should learn: look at what is dropped, or report only.

    Attributes:
        threshold: smallest confidence that stays; default: the quantile decides.
        quantile: share of the rows below gamma, where no threshold is set.
    """

    name: ClassVar[str] = "confidence"
    requirements: ClassVar[Requirements] = Requirements(features={CONFIDENCE})

    threshold: float | None = option(None, ge=0, le=1)
    quantile: float = option(0.05, ge=0, le=1)

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row below gamma."""
        value = np.asarray(pool.features[CONFIDENCE], dtype=np.float64)  # (n,), NaN with a reason
        known = value[~np.isnan(value)]
        if self.threshold is not None:
            gamma = float(self.threshold)
        else:
            gamma = float(np.quantile(known, self.quantile)) if len(known) else 0.0
        missing = pool.features.missing.get(CONFIDENCE, [None] * len(value))
        is_low = pl.col("value") < gamma
        parts = pl.DataFrame({"value": pl.Series(value).fill_nan(None), "missing": missing}).select(
            reason=pl.when(is_low).then(pl.lit("low-confidence")),
            explanation=pl.when(is_low)
            .then(pl.format(f"has confidence {{}}, below {gamma:.4g}", pl.col("value").round(4)))
            .otherwise(pl.format("has no confidence: {}", pl.col("missing").cast(pl.String))),
        )
        return Verdict.from_frame(parts, notes={"gamma": gamma, "without_confidence": int(np.isnan(value).sum())})
