"""Coverage of a pool by its distinct rows: how such a method begins, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.features.container import Features
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.vectors import Distinct, distinct_rows, inverse_norms
from thresher.selectors.submodular.kernel_method import PairwiseGreedy
from thresher.subset.cover_history import CoverHistory
from thresher.subset.scores import Scores, fill_ranking

if TYPE_CHECKING:  # these compile on first use
    from thresher.selectors.submodular.greedy import CoverageState, Picks


@dataclass(frozen=True, kw_only=True)
class DistinctGreedy(PairwiseGreedy):
    """A method that covers all rows and picks each of several equal rows once.

    Attributes:
        kernel, n_neighbors, max_kernel_gb, optimizer, epsilon: as in `PairwiseGreedy`.
    """

    def estimate_memory(self, n_rows: int, n_unique: int, n_dimensions: int) -> int:
        """Return the peak in bytes: equal rows are compared once."""
        return super().estimate_memory(n_unique, n_unique, n_dimensions)

    def _compared(self, features: Features) -> tuple[int, int]:
        """Return how many distinct rows there are, of how many components."""
        x = np.ascontiguousarray(features["embedding"], dtype=np.float32)
        return len(distinct_rows(x).first), x.shape[1]

    def _start(
        self, features: Features, weigh: Callable[[Distinct], Float64 | Int64], rng: np.random.Generator
    ) -> DistinctCover:
        """Return the cover before the first pick.

        Args:
            features: with `embedding`, and `existing_embedding` of the context where it is there.
            weigh: returns how much each group of equal rows counts, (u,).
            rng: of the neighbor search.

        Raises:
            InputError: the dense kernel was asked for and is too large.
        """
        from thresher.selectors.submodular import greedy, kernels

        x = np.ascontiguousarray(features["embedding"], dtype=np.float32)  # (n, d)
        distinct = distinct_rows(x)
        vectors = x if len(distinct.first) == len(x) else x[distinct.first]
        plan = self._plan_memory(*vectors.shape)
        scale = inverse_norms(vectors)
        unit = vectors * scale.astype(np.float32)[:, None]
        floor = kernels.similarity_to_existing(vectors, scale, features.context.get("existing_embedding"))
        weight = weigh(distinct)
        state = greedy.start_coverage(vectors, scale, weight.astype(np.float32), floor.copy())
        kernel, notes = kernels.build_kernel(plan, unit, rng, features.products, features.store)
        return DistinctCover(
            distinct=distinct,
            vectors=vectors,
            scale=scale,
            unit=unit,
            weight=weight,
            floor=floor,
            state=state,
            kernel=kernel,
            notes={**notes, "guarantee": self._guarantee(plan)},
        )

    def _pick(self, cover: DistinctCover, n_picks: int, rng: np.random.Generator) -> Picks:
        """Return the next picks, in places of distinct rows: fewer where nothing more is gained."""
        from thresher.selectors.submodular import kernels, pick_rules

        rule = pick_rules.start_pick_rule(self.optimizer, self.epsilon, rng, cover.state.is_pick)
        return kernels.pick_greedily(cover.kernel, cover.state, n_picks, rule)


@dataclass(frozen=True, kw_only=True)
class DistinctCover:
    """The distinct rows of a pool, and what of them the picks cover.

    Attributes:
        distinct: groups of equal rows.
        vectors: (u, d) of the distinct rows.
        scale: (u,) one over their lengths, 0 for zero rows.
        unit: (u, d) of length 1 (or 0).
        weight: (u,) how much each counted at the start.
        floor: (u,) similarity to the existing rows.
        state: of the greedy.
        kernel: dense, or a graph of neighbors.
        notes: for the manifest.
    """

    distinct: Distinct
    vectors: Float32
    scale: Float64
    unit: Float32
    weight: Float64 | Int64
    floor: Float64
    state: CoverageState
    kernel: Any
    notes: dict[str, Any]

    def mark_picked(self, rows: Int64) -> None:
        """Count distinct rows as picked that the greedy did not pick, (m,) places."""
        from thresher.selectors.submodular import kernels

        self.state.is_pick[rows] = True
        near = kernels.similarity_to_existing(self.vectors, self.scale, self.vectors[rows])
        np.maximum(self.state.floor, near, out=self.state.floor)
        np.maximum(self.state.open_from, near.astype(np.float32), out=self.state.open_from)

    def trace(self, picked: Int64) -> CoverHistory:
        """Return what stood for each row after any number of picks of one greedy run.

        Args:
            picked: (k,) distinct rows that gained something, best first.
        """
        from thresher.selectors.submodular.cover_trace import trace_cover

        group = None if len(self.distinct.first) == len(self.distinct.group) else self.distinct.group
        marks = {"n_picks_with_gain": np.arange(len(picked))}
        return trace_cover(self.kernel, picked, self.floor, group, marks)

    def score(
        self, method: str, features: Features, picked: Int64, n_ranked: int, notes: dict[str, Any], **more: Any
    ) -> Scores:
        """Return the scores of all rows, with what represents each.

        Args:
            method: its name.
            features: of all n rows.
            picked: (k,) distinct rows, best first; the lowest rows follow.
            n_ranked: rows to rank.
            notes: for the manifest, beside those of the kernel.
            more: fields of `Scores`.
        """
        from thresher.selectors.submodular import kernels

        first, group = self.distinct.first, self.distinct.group
        ranking = fill_ranking(first[picked], n_ranked, np.ones(len(group), np.bool_))
        by = np.where(self.state.by >= 0, first[self.state.by], -1)  # in places of all rows
        covered = (by[group], self.state.nearest[group], self.floor[group])
        return kernels.score_ranking(method, features.row_id, ranking, covered, notes={**self.notes, **notes}, **more)
