"""Confidence: rows whose given answer a model trusts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.features.settings import ConfidenceSettings
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Confidence(ConfidenceSettings, Selector):
    """Rank rows by a model's confidence that the answer they give is right (CLEAR's auto-filter).

    Optimizes the sum over the picks of C = beta O + (1 - beta) S, 0 to 1. O: the model answers the
    prompt n_samples times, and O is the mean over its answers of alpha (agreement in meaning) + (1
    - alpha) (same words as the given answer). S: P(A) / (P(A) + P(B)) when the model is asked
    whether the given answer is correct, over two questions. Agreement in meaning is 1 -
    P(contradiction) of the `entailment` model, both orders averaged, or without one the cosine of
    the encoder. Of classification data C is the trust in the given label by classifiers that have
    not seen the row: how much likelier it is than any other label, after a part of the labels'
    shares was divided out; no language model is asked.

    Source: Chen & Mueller 2024, arXiv:2403.12776 (CLEAR) and arXiv:2308.16175 (BSDetector); labels:
    Northcutt et al. 2021, doi:10.1613/jair.1.12125. Cost: n_samples answers of each row, two
    forward passes over prompt and response, and 2 n_samples passes of the entailment model or
    n_samples + 1 of the encoder: with long answers by far the dearest method here. A server asks
    n_samples + 2 requests per row. Needs: `confidence`, from --model (a model, an adapter or the
    address of a server) or the default one, and --encoder; classification data need the encoder
    alone. Ties: to the lowest row, so equal rows stay together. An empty pool is refused. A row
    without prompt or response, or that the model cannot answer, is excluded with its reason. Fails:
    a weak model trusts what it would say itself: right answers that it cannot give look wrong, and
    just these it should learn. With the toy `tiny` it is at chance: of 1,200 worked solutions
    of 300 questions of GSM8K, a right one had the higher confidence than a wrong one of the same
    question in 0.52 of the pairs (95 % interval 0.47 to 0.58). So use it to find rows to review,
    and look at what was dropped by length and source. Agreement says little of long or creative
    answers. Of labels, noise that is systematic is learned as if it were right, and every such
    detector falls below chance.

    The paper keeps the better half: --budget 50%; a threshold is possible too (--budget
    'score>0.8').

    Attributes:
        n_samples: answers drawn of each prompt.
        temperature: they are drawn at.
        max_new_tokens: limit of each; what is longer is cut and counted.
        entailment: folder or Hub id of a natural-language-inference model; default: the encoder's
            cosine.
        alpha: weight of agreement in meaning against equality, of O.
        beta: weight of O against S.
        seed: of the draws.
        labels: of classification data: "auto", "plain" (the probability of the given label) or
            "prior-divided" (the same, after probabilities were divided by the labels' shares).

    Differs: answers are drawn for the row's own prompt, not for variations of it that ask to think
    first. The wording of the two questions is ours: the paper's could not be confirmed. "I am not
    sure" is not among the options; locally the probabilities of the next token take its place.
    """

    name: ClassVar[str] = "confidence"

    @property
    def requirements(self) -> Requirements:
        """The confidence, and how the model is asked for it."""
        return Requirements(
            features={"confidence"}, feature_settings={"confidence": ConfidenceSettings(**asdict(self))}
        )

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row that has a confidence."""
        confidence = features["confidence"]  # (n,) float64 0..1, NaN where there is a reason
        return Scores(
            row_id=features.row_id,
            value=np.where(np.isfinite(confidence), confidence, -np.inf),
            by=self.name,
            excluded=features.missing.get("confidence"),
        )
