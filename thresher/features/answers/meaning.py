"""Which texts say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from thresher.features.answers.entailment import Entailment
from thresher.features.answers.prompts import plain
from thresher.features.embedding import embed_texts
from thresher.numeric.arrays import Bool

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
