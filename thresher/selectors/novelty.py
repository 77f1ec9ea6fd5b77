"""Novelty: rows that hold what fine-tuning taught a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thresher.features.container import Features
from thresher.features.reference_adapters import RequiredAdapter
from thresher.selectors.loss_reduction import LossReduction
from thresher.subset.scores import Scores
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class Novelty(LossReduction):
    """Rank rows by how much likelier a fine-tuned model finds them than its base: what is new.

    Optimizes the sum over the picks of the mean over the response's tokens of log p(fine-tuned) -
    log p(base), in nats per token: the contrastive score of "What's New in My Data?", of rows that
    are given rather than generated. High: the base did not expect it, and training taught it.
    Around 0: known before, or not learned. Below 0: unlearned.

    Source: Isonuma & Titov 2025, arXiv:2410.14765. The same quantity as `learnability` with
    form=difference (LoBaSS, RHO-LM), and the same code. Cost: two passes of a model over the rows,
    then O(n) time. Where no reference is given, one adapter is trained on the whole pool for
    `epochs` epochs: as many forward and backward passes over it. Needs: `loss`, from --model or the
    default one, and `reference_loss`, from the fine-tuned model or adapter that the setting
    `reference` names, or else from an adapter that is trained here and kept in the cache. Ties: to
    the lowest row, so equal rows stay together. An empty pool is refused. A row with no token to
    score is excluded with its reason. Fails: it follows length closely (rank correlations of 0.75
    and 0.83 on Alpaca, 0.58 on GSM8K, 0.20 on LIMA for this form, arXiv:2310.13008), and a format
    that all rows share is new in each of them. A reference of many epochs knows all rows by heart,
    and the score is then the base's loss. It tells what a model learned, not what is worth
    learning: wrong and odd rows that were learned come first. On classification data it lost to
    random rows by 0.15 to 0.31 of accuracy in all six comparisons
    (`benchmarks/selection_helps.py`).

    Differs: `learnability` asks what can be learned from other rows, so it is cross-fitted, leaves
    out what the base knows, and divides by the loss; here the reference has seen the rows, whose
    novelty is looked for, and nothing is left out. The paper generates texts and fine-tunes on them
    to find more; here the rows are at hand.

    Attributes:
        reference: folder or Hub id of the fine-tuned model, or folder of its adapter on the base;
            default: one is trained.
        epochs: of the adapter that is trained.
    """

    name: ClassVar[str] = "novelty"

    epochs: int = option(1, ge=1)

    @property
    def _adapter(self) -> RequiredAdapter:
        return RequiredAdapter(role="reference", epochs=self.epochs)

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row that both models can score."""
        return self._score(features, features["loss"] - features["reference_loss"])
