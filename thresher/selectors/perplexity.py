"""Perplexity: the rows that a language model finds most, least or averagely likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Perplexity(Selector):
    """Rank rows by how well a language model predicts their responses.

    Optimizes the sum over the picks of -loss (low), of -|loss - median of the pool| (middle) or of
    loss (high). The loss is the logarithm of the perplexity: nats per response token given the
    prompt.

    Source: Marion et al. 2023, arXiv:2309.04564 (the middle is best for pretraining); Ankner et al.
    2024, arXiv:2405.20541 (it depends on the data which band is). Cost: one pass of the model over
    the rows, then O(n) time. Needs: `loss`, from --model or the default one. Ties: to the lowest
    row, so equal rows stay together. An empty pool is refused. A row with no token to score is
    excluded with its reason, never counted as easy. Fails: in a like-for-like test both the middle
    (39.4) and the high band (34.2) did worse than random rows (40.9; mean of seven tasks, Ivison et
    al. 2025, arXiv:2503.01807). The mean over tokens depends on length: short answers spread
    widest, so "high" collects short odd ones and "low" boilerplate and copies. "high" also collects
    wrong answers and garbage. What the model was trained on looks easy to it. On classification
    data the middle band lost to random rows by 0.08 and 0.10 of accuracy at 30 %
    (`benchmarks/selection_helps.py`).

    Attributes:
        band: "low" (likeliest first), "middle" (nearest to the median) or "high" (least likely
            first).
    """

    name: ClassVar[str] = "perplexity"
    requirements: ClassVar[Requirements] = Requirements(features={"loss"})

    band: Literal["low", "middle", "high"] = "middle"

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row that has a loss."""
        loss = features["loss"]  # (n,) float64 nats per token, NaN where there is a reason
        has_loss = np.isfinite(loss)
        if self.band == "low":
            value = -loss
        elif self.band == "high":
            value = loss
        else:
            value = -np.abs(loss - np.median(loss[has_loss])) if has_loss.any() else loss
        return Scores(
            row_id=features.row_id,
            value=np.where(has_loss, value, -np.inf),
            by=self.name,
            excluded=features.missing.get("loss"),
        )
