"""Instruction-following difficulty: rows whose prompt helps the model least, but does help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores

NO_HELP = "its difficulty is above 1: the response is less likely with the prompt than without it"
NO_LOSS = "the model is certain of its response without the prompt, so its difficulty is undefined"


@dataclass(frozen=True, kw_only=True)
class Difficulty(Selector):
    """Rank rows by instruction-following difficulty (IFD), the hardest first.

    Optimizes the sum over the picks of IFD = loss of the response with the prompt / loss of it
    without, among the rows where it is at most 1. Near 0 the prompt tells the response; near 1 it
    does not help; above 1 it misleads, and the row is excluded with that reason.

    Source: Li et al. 2024a, arXiv:2308.12032 (Cherry LLM); with "perplexity", exp(loss with - loss
    without), Li et al. 2024b, arXiv:2402.00530 (Superfiltering). Both exclude the same rows. Cost:
    two passes of the model over the rows, one of them over the responses alone; then O(n) time.
    Needs: `loss`, `loss_unconditional`, from --model or the default one. Ties: to the lowest
    row, so equal rows stay together. An empty pool is refused. A row with no token to score is
    excluded with its reason. Fails: in a like-for-like test it lost to random rows (Ivison et al.
    2025, arXiv:2503.01807), and its gains on chat judges came with losses on knowledge (MMLU 41.7
    to 36.5 in the authors' own table). A wrong answer looks hard. A weak model finds little help in
    any prompt, so that much is excluded or near 1. On classification data it lost to random rows by
    0.10 and 0.13 of accuracy at 30 % (`benchmarks/selection_helps.py`).

    Differs: BOS stands before both passes and exactly the same tokens are scored in both; the
    official scripts score one token more with the prompt.

    Attributes:
        ratio: "loss" or "perplexity".
    """

    name: ClassVar[str] = "difficulty"
    requirements: ClassVar[Requirements] = Requirements(features={"loss", "loss_unconditional"})

    ratio: Literal["loss", "perplexity"] = "loss"

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row whose difficulty is defined and at most 1."""
        # (n,) NaN: not defined
        difficulty = self._difficulty(features["loss"], features["loss_unconditional"])
        reasons = np.select([np.isnan(difficulty), difficulty > 1], [NO_LOSS, NO_HELP], default="")
        excluded = features.missing_reasons("loss", "loss_unconditional", other=reasons)
        value = np.where(excluded.is_null().to_numpy(), difficulty, -np.inf)
        return Scores(row_id=features.row_id, value=value, by=self.name, excluded=excluded)

    def _difficulty(self, conditional: NDArray[np.float64], alone: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.ratio == "perplexity":
            with np.errstate(over="ignore"):  # infinity is above 1 like any other
                difficulty: NDArray[np.float64] = np.exp(conditional - alone)
        else:
            difficulty = np.divide(conditional, alone, out=np.full(len(alone), np.nan), where=alone > 0)
        return difficulty
