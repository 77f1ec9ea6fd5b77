"""Which texts say the same, and how many different things a model's answers to one prompt say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.features.answers.entailment import Entailment
from thresher.features.answers.prompts import plain
from thresher.features.embedding import embed_texts
from thresher.numeric.arrays import Bool, Float64

if TYPE_CHECKING:
    from thresher.features.context import FeatureContext

LEAST_ENTAILMENT = 0.5  # probability in each order from which one text follows from the other
LEAST_COSINE = 0.8  # from which texts say the same, where there is no entailment model


def compare_meaning(
    pairs: Sequence[tuple[str, str]], context: FeatureContext, *, entailment: str | None, stage: str
) -> Bool:
    """Return which pairs say the same, (p,).

    The same words do. Others do where each text follows from the other by an entailment model; or,
    without one, where the cosine of the encoder's vectors is at least 0.8.

    Args:
        pairs: of texts.
        context: of the models.
        entailment: model for natural language inference, by folder or Hub id; None for cosines.
        stage: that listeners are told of.
    """
    is_same: Bool = np.array([plain(a).casefold() == plain(b).casefold() for a, b in pairs], dtype=np.bool_)
    others = np.flatnonzero(~is_same)
    if not len(others):
        return is_same
    asked = [pairs[i] for i in others.tolist()]
    if entailment is not None:
        judge = Entailment(entailment, device=context.models.device)
        both = [*asked, *((b, a) for a, b in asked)]
        p = judge.predict_entailments(both, stage=stage, context=context).reshape(2, -1)
        is_same[others] = (p >= LEAST_ENTAILMENT).all(axis=0)
        return is_same
    x, y = (embed_texts([pair[side] for pair in asked], context, stage=stage) for side in (0, 1))
    is_same[others] = np.einsum("pd,pd->p", x, y, dtype=np.float64) >= LEAST_COSINE
    return is_same


def describe_meaning(context: FeatureContext, entailment: str | None) -> dict[str, Any]:
    """Return what decides which texts say the same, in JSON values: a model, and from when on."""
    if entailment is not None:
        return {"meaning": Entailment(entailment, device=context.models.device).fingerprint, "from": LEAST_ENTAILMENT}
    return {"meaning": context.load_encoder().fingerprint, "from": LEAST_COSINE}


def cluster_answers(
    answers: Sequence[Sequence[str]], context: FeatureContext, *, entailment: str | None, stage: str
) -> list[list[int]]:
    """Return a cluster number for each answer of each prompt: answers of one cluster say the same.

    An answer joins the first cluster whose first answer it says the same as (Kuhn et al. 2023).

    Args:
        answers: of each prompt.
        context: of the models.
        entailment: as for `compare_meaning`.
        stage: that listeners are told of.
    """
    ordered = [list(dict.fromkeys(own)) for own in answers]
    pairs = [(own[i], own[j]) for own in ordered for j in range(len(own)) for i in range(j)]
    is_same = dict(zip(pairs, compare_meaning(pairs, context, entailment=entailment, stage=stage), strict=True))
    clusters = []
    for own, given in zip(ordered, answers, strict=True):
        firsts: list[str] = []
        cluster_of: dict[str, int] = {}
        for text in own:
            known = next((k for k, first in enumerate(firsts) if is_same[first, text]), len(firsts))
            firsts += [text] if known == len(firsts) else []
            cluster_of[text] = known
        clusters.append([cluster_of[text] for text in given])
    return clusters


def measure_entropy(clusters: Sequence[Sequence[int]]) -> Float64:
    """Return H = -sum p ln p over the clusters of each prompt's answers, (n,); nan for none."""
    values = np.full(len(clusters), np.nan)
    for i, own in enumerate(clusters):
        if own:
            shares = np.bincount(own) / len(own)
            shares = shares[shares > 0]
            values[i] = -(shares * np.log(shares)).sum()
    positive: Float64 = np.abs(values)  # of one cluster 0, not -0
    return positive
