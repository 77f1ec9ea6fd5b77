"""Confidence: the CLEAR filter, rows whose answer the model does not trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.curation.rule import Rows
from thresher.curation.verdict import Verdict
from thresher.validation import check_number

CONFIDENCE = "confidence"


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Drop rows whose given answer has a low confidence.

    A row stays when its confidence is at least gamma: a threshold, or a quantile of the confidences
    of the pool. A row without a confidence stays, with its reason as a finding.

    Source: CLEAR's Auto-Filter, Chen and Mueller 2024, arXiv:2403.12776, with gamma the median.
    Cost: the feature's, see `confidence`. Needs: `confidence`. Fails: a weak model distrusts
    answers that are hard and right, just those it should learn: look at what is dropped, or report
    only.

    Attributes:
        threshold: smallest confidence that stays; not set: the quantile decides.
        quantile: share of the rows below gamma, where no threshold is set.
    """

    name: ClassVar[str] = "confidence"
    needs: ClassVar[frozenset[str]] = frozenset({CONFIDENCE})

    threshold: float | None = None
    quantile: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.threshold is not None:
            check_number(self.name, "threshold", self.threshold, 0.0, 1.0)
        check_number(self.name, "quantile", self.quantile, 0.0, 1.0)

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row below gamma."""
        value = np.asarray(pool.features[CONFIDENCE], dtype=np.float64)  # (n,), NaN with a reason
        known = value[~np.isnan(value)]
        if self.threshold is not None:
            gamma = float(self.threshold)
        else:
            gamma = float(np.quantile(known, self.quantile)) if len(known) else 0.0
        low = pl.Series(value < gamma)
        missing = pool.features.missing.get(CONFIDENCE)
        frame = pl.DataFrame({"value": value, "missing": missing if missing is not None else [None] * len(value)})
        judged = frame.select(
            reason=pl.when(low).then(pl.lit("low-confidence")),
            explanation=pl.when(low)
            .then(pl.format(f"has confidence {{}}, below {gamma:.4g}", pl.col("value").round(4)))
            .otherwise(pl.format("has no confidence: {}", pl.col("missing").cast(pl.String))),
        )
        return Verdict(
            reason=judged["reason"],
            explanation=judged["explanation"],
            notes={"gamma": gamma, "without_confidence": int(np.isnan(value).sum())},
        )
