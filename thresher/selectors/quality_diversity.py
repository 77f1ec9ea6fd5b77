"""Quality and diversity: rows that score high, spread so that they stand for the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.features.registry import available as available_features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float64
from thresher.numeric.vectors import inverse_norms
from thresher.selectors.nested import Nested
from thresher.selectors.submodular.kernel_method import NestedGreedy
from thresher.subset.scores import fill_ranking
from thresher.validation import option

COLUMN = "column:"
NUMBER = "number:"


@dataclass(frozen=True, kw_only=True)
class QualityDiversity(NestedGreedy):
    """Rank rows so that every prefix scores high and represents the pool, by greedy picks (QDIT).

    Optimizes F(S) = (1 - alpha) f(S) / f(pool) + alpha q(S) / q(pool): f is that of
    `facility-location` (each row counts with its cosine to the nearest pick), q the sum of the
    qualities of the picks, each brought to 0..1. Both parts are 1 for the whole pool. Each pick is
    the row that raises F most; F is monotone submodular, so with the dense kernel every prefix of k
    rows has at least 63 % of the largest F of any k rows.

    Source: Bukharin et al. 2024 (Findings of EMNLP), arXiv:2311.14736. The greedy algorithm is
    exact; the oracle of the tests is a plain one in float64. Cost: as `facility-location`: dense
    O(n^2 d) time and 4 n^2 bytes, sparse O(n n_neighbors) memory and a neighbor search; besides,
    what the quality costs. Needs: `embedding` and the quality: a column of yours with numbers, or a
    feature (`loss`, `length`, ...); uses `existing_embedding` of the context, if there, as rows
    already picked. Ties: to the lowest row. Equal rows cover each other, so that after one only its
    quality speaks for another. An empty pool is refused. A row without a quality is represented
    like any other, but never picked: it is excluded with its reason. Fails: as good as the quality
    is: with `loss` or `length` it collects what these collect. With low loss it lost to random rows
    by 0.20 to 0.35 of accuracy on product attributes, and on Banking77 beat them at 5 % and not at
    30 % (`benchmarks/selection_helps.py`). With alpha near 1 repeats of one good row come together.
    Sparse: more than n_neighbors copies of one row see only each other; remove duplicates before.

    `covered_by` is the pick nearest to each row, EXISTING where an existing row is at least as
    near, -1 for neither, as it is for all rows but picks when alpha is 1 and rows are not compared;
    `objective` is F after each pick.

    Attributes:
        quality: name of a feature, else of your column; "column:NAME" for a column that is called
            like a feature.
        prefer: "high" or "low" values of it.
        alpha: weight of quality, 0..1; at 0 the picks are those of `facility-location`, at 1 those
            of quality alone.
        scale: "rank" (share of the rows that are worse: outliers do not matter) or "range" (between
            least and largest).
        kernel, n_neighbors, max_kernel_gb, optimizer, epsilon: as in `facility-location`.

    Differs: the paper leaves open how the two parts are scaled to one another; here both are shares
    of the whole pool.
    """

    name: ClassVar[str] = "quality-diversity"
    ranks_only: ClassVar[bool] = True

    quality: str = "score"
    prefer: Literal["high", "low"] = "high"
    alpha: float = option(0.5, ge=0, le=1)
    scale: Literal["rank", "range"] = "rank"

    @property
    def requirements(self) -> Requirements:
        """The embedding, and the feature or column that holds the quality."""
        return Requirements(features={"embedding", self._source}, side_features={"existing": {"embedding"}})

    @property
    def _source(self) -> str:
        if not self.quality.startswith(COLUMN) and self.quality in available_features():
            return self.quality
        return NUMBER + self.quality.removeprefix(COLUMN)

    def rank(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Nested:
        """Rank `n_ranked` rows greedily, or as many as have a quality; the others score -inf.

        Raises:
            InputError: the quality is not one number per row, or the
                dense kernel was asked for and is too large.
        """
        # these compile on first use
        from thresher.selectors.neighbors.csr import Graph
        from thresher.selectors.submodular import cover_trace, greedy, kernels, pick_rules

        vectors = np.ascontiguousarray(features["embedding"], dtype=np.float32)  # (n, d)
        n = len(vectors)
        quality = self._quality(features)  # (n,) 0..1, NaN where there is none
        has_quality = np.isfinite(quality)
        n_picks = min(n_ranked, int(has_quality.sum()))
        scale = inverse_norms(vectors)
        floor = kernels.similarity_to_existing(vectors, scale, features.context.get("existing_embedding"))
        # f of the whole pool, above what exists
        reach = float(np.maximum((scale > 0) - floor, 0).sum())
        worth = float(quality[has_quality].sum())
        cover = greedy.start_coverage(vectors, scale, np.ones(n, np.float32), floor)
        cover.is_pick[~has_quality] = True  # of the engine: not to be picked
        weight = self._weights(reach, worth)
        notes: dict[str, str | int | float] | None = None
        kernel: Any = Graph(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        covering = np.zeros(0, np.int64)
        if weight[0] == 0:  # only quality counts, or nothing is left to cover
            picks = np.argsort(np.where(has_quality, -quality, np.inf), kind="stable")[:n_picks].astype(np.int64)
            gains = np.zeros(n_picks)
        else:
            bonus = np.where(has_quality, quality * (weight[1] / weight[0]), 0.0)
            plan = self._plan_memory(*vectors.shape)
            kernel, notes = kernels.build_kernel(
                plan, vectors * scale.astype(np.float32)[:, None], rng, features.products, features.store
            )
            rule = pick_rules.start_pick_rule(self.optimizer, self.epsilon, rng, cover.is_pick)
            covering, gains, n_visited = kernels.pick_greedily(kernel, cover, n_picks, rule, bonus)
            notes = {**notes, "guarantee": self._guarantee(plan), "n_pair_updates": n_visited}
            # the rule "threshold" ends early: no gain was above its last threshold
            picks = fill_ranking(covering, n_picks, has_quality)
            gains = np.pad(gains, (0, len(picks) - len(gains)))
        scores = kernels.score_ranking(
            self.name,
            features.row_id,
            picks,
            (cover.by, cover.nearest, floor),
            excluded=features.missing.get(self._source),
            objective=np.cumsum(gains * weight[0] + quality[picks] * weight[1]),
            notes=notes,
        )
        return Nested(scores, lambda: cover_trace.trace_cover(kernel, covering, floor))

    def _weights(self, reach: float, worth: float) -> tuple[float, float]:
        """Return what one unit of f and one of quality add to F."""
        return (1 - self.alpha) / reach if reach > 0 else 0.0, self.alpha / worth if worth > 0 else 0.0

    def _quality(self, features: Features) -> Float64:
        """Return each row's quality in 0..1, higher is better: (n,) float64, NaN where missing."""
        raw = features[self._source]
        if raw.ndim != 1 or not np.issubdtype(raw.dtype, np.number):
            raise InputError(
                f"{self.name}: quality must be one number per row, and '{self.quality}' is an array of {raw.dtype} "
                f"{raw.shape}; choose another feature or column"
            )
        value = raw.astype(np.float64) * (1 if self.prefer == "high" else -1)
        has_value = np.isfinite(value)
        known = value[has_value]
        if self.scale == "rank":
            known = (pl.Series(known).rank("average").to_numpy() - 1) / max(len(known) - 1, 1)
        elif len(known):
            span = known.max() - known.min()
            known = (known - known.min()) / span if span > 0 else np.zeros_like(known)
        value[has_value] = known
        return value
