"""Learnability: rows that a model does not know yet and that learning such rows makes likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from thresher.features.container import Features
from thresher.features.reference_adapters import RequiredAdapter
from thresher.selectors.loss_reduction import LossReduction
from thresher.subset.scores import Scores
from thresher.validation import option

KNOWN = "the base model's loss is below min_loss: it already knows the response"


@dataclass(frozen=True, kw_only=True)
class Learnability(LossReduction):
    """Rank rows by how much of their loss goes away once a model has learned such rows.

    Optimizes the sum over the picks of (loss - reference loss) / loss ("relative", DavIR), or of
    loss - reference loss ("difference", LoBaSS, the same as RHO-LM's). High: unknown to the base
    model and learned by the reference. Low: known already, or not learned even so.

    Source: Zhou et al. 2023, arXiv:2310.13008 (LoBaSS in its first version, DavIR in the second).
    Cost: two passes of a model over the rows, then O(n) time. Where no reference is given, one is
    trained: `folds` adapters, each for 1 epoch on the rows outside its fold, so folds - 1 forward
    and backward passes over the pool. Needs: `loss`, from --model or the default one, and
    `reference_loss`, from the model or adapter that the setting `reference` names, or else from
    adapters that are trained here and kept in the cache. Ties: to the lowest row, so equal rows
    stay together. An empty pool is refused. A row with no token to score is excluded with its
    reason, and so is one whose loss is below `min_loss`, where the ratio says nothing. Fails: with
    a given reference that was trained on the pool for several epochs: it knows the rows by heart
    and every score is near 1. The difference follows length closely (rank correlations in the
    paper: 0.75 and 0.83 on Alpaca, 0.58 on GSM8K, 0.20 on LIMA), the relative form less (0.30,
    0.47, 0.06, 0.02). It costs about as much as training once on everything, so it pays when
    several trainings follow. On classification data, asked of a small language model, it lost to
    random rows by 0.08 to 0.36 of accuracy in six comparisons, three of them beyond doubt
    (`benchmarks/selection_helps.py`).

    Attributes:
        reference: folder or Hub id of the reference, folder of its adapter on the base, or folder
            of cross-fitted adapters; default: these are trained.
        folds: of the adapters that are trained; each row is scored by the one that has not seen it,
            nor its repeats.
        form: "relative" or "difference".
        min_loss: least loss of the base model in nats per token.

    Differs: the paper has no least loss, and its reference has seen the rows that it scores.
    """

    name: ClassVar[str] = "learnability"

    folds: int = option(2, ge=2)
    form: Literal["relative", "difference"] = "relative"
    min_loss: float = option(0.05, ge=0, le=1e6)

    @property
    def _adapter(self) -> RequiredAdapter:
        return RequiredAdapter(role="reference", n_folds=self.folds)

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row whose learnability is defined."""
        loss = features["loss"]
        reduction = loss - features["reference_loss"]  # (n,) nats per token, NaN where a loss is
        if self.form == "relative":
            reduction = np.divide(reduction, loss, out=np.zeros_like(reduction), where=loss > 0)
        # NaN: has a reason of its own
        is_known = loss < max(self.min_loss, np.finfo(np.float64).tiny)
        return self._score(features, reduction, np.where(is_known, KNOWN, ""))
