"""Learnability: rows that a model does not know yet and that learning such rows makes likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.features.container import Features
from thresher.features.reference_adapters import RequiredAdapter
from thresher.selectors.checks import check_n_ranked, check_named, check_number, check_one_of, check_whole
from thresher.subset.scores import Scores

KNOWN = "the base model's loss is below min_loss: it knows the response already"


@dataclass(frozen=True, kw_only=True)
class Learnability:
    """Rank rows by how much of their loss goes away once a model has learned such rows.

    Optimizes the sum over the picks of (loss - reference loss) / loss ("relative", DavIR), or of
    loss - reference loss ("difference", LoBaSS, the same as RHO-LM's). High: unknown to the base
    model and learned by the reference. Low: known already, or not learned even so.

    Source: Zhou et al. 2023, arXiv:2310.13008 (LoBaSS in its first version, DavIR in the second).
    Cost: two passes of a model over the rows, then O(n) time. Where no reference is given, one is
    trained: `folds` adapters, each for 1 epoch on the rows outside its fold, so folds - 1 forward
    and backward passes over the pool. Needs: `loss`, from --model or the embedded model, and
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
            of cross-fitted adapters; not set: these are trained.
        folds: of the adapters that are trained; each row is scored by the one that has not seen it,
            nor its repeats.
        form: "relative" or "difference".
        min_loss: least loss of the base model in nats per token.

    Differs: the paper has no least loss, and its reference has seen the rows that it scores.
    """

    name: ClassVar[str] = "learnability"
    needs: ClassVar[frozenset[str]] = frozenset({"loss", "reference_loss"})

    reference: str | None = None
    folds: int = 2
    form: str = "relative"
    min_loss: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings."""
        check_whole(self.name, "folds", self.folds, 2)
        check_one_of(self.name, "form", self.form, ("relative", "difference"))
        check_number(self.name, "min_loss", self.min_loss, 0.0, 1e6)
        check_named(self.name, "reference", self.reference, "a model or an adapter")

    @property
    def feature_settings(self) -> Mapping[str, Any]:
        """The reference, where one is given."""
        return {} if self.reference is None else {"reference": self.reference}

    @property
    def prepares(self) -> tuple[RequiredAdapter, ...]:
        """The adapters to train where no reference is given."""
        return () if self.reference is not None else (RequiredAdapter(role="reference", n_folds=self.folds),)

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row whose learnability is defined.

        Raises:
            InputError: `n_ranked` is not in 1..n.
        """
        check_n_ranked(self.name, n_ranked, features.n_rows)
        gone, unscored = loss_gone(features)
        loss = features["loss"]
        if self.form == "relative":
            gone = np.divide(gone, loss, out=np.zeros_like(gone), where=loss > 0)
        is_known = loss < max(self.min_loss, np.finfo(np.float64).tiny)  # NaN: has a reason of its own
        known = pl.Series("excluded", np.where(is_known, KNOWN, ""), dtype=pl.String).replace("", None)
        excluded = pl.select(pl.coalesce(unscored, known)).to_series()
        value = np.where(excluded.is_null().to_numpy(), gone, -np.inf)
        return Scores(row_id=features.row_id, value=value, by=self.name, excluded=excluded)


def loss_gone(features: Features) -> tuple[NDArray[np.float64], pl.Series]:
    """Return how much of each row's loss is gone under the reference, and why some rows have no loss.

    Args:
        features: hold `loss` and `reference_loss`.

    Returns:
        (n,) float64 nats per token, NaN where a loss is; (n,) string, null where both are there.
    """
    excluded = pl.Series("excluded", [None] * features.n_rows, dtype=pl.String)
    for name in ("reference_loss", "loss"):
        if name in features.missing:
            excluded = pl.select(pl.coalesce(features.missing[name], excluded)).to_series()
    gone: NDArray[np.float64] = features["loss"] - features["reference_loss"]
    return gone, excluded
