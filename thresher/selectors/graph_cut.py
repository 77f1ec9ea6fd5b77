"""Graph cut: pick rows that are like the pool and unlike one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.threads import limit_blas
from thresher.numeric.vectors import distinct_rows, unit_rows
from thresher.selectors.contract import Selector
from thresher.selectors.submodular.memory import KernelSettings, MemoryPlan, plan_streamed_memory
from thresher.selectors.submodular.optimizers import describe_guarantee, describe_restriction
from thresher.subset.scores import EXISTING, Scores, ranked
from thresher.validation import option

if TYPE_CHECKING:
    from thresher.selectors.neighbors.csr import Graph


EXACT_ROWS = 50_000  # up to here "auto" compares all pairs
CLOSE = 1e-6  # gains within CLOSE * (1 + gain) are computed anew in float64
# error of a sum of float32 cosines, as a share of the largest sum: what is left of it keeps the
# error
DRIFT = 2e-7
EQUAL = 1e-11  # relative; gains as close in float64 are ties
# at most so many different rows with close gains (the lowest ones) are compared in float64
N_COMPARED = 64


@dataclass(frozen=True, kw_only=True)
class GraphCut(Selector):
    """Rank rows so that every prefix is similar to the pool and little redundant, by greedy picks.

    Optimizes f(S) = sum over all rows i and picks j of s_ij - redundancy * sum over picks i and j
    of s_ij with s_ij = max(0, cos(i, j)). Each pick is the row that raises f most, or lowers it
    least. f is submodular, and monotone for redundancy <= 0.5 without existing rows: then every
    prefix has at least 1 - 1/e of the largest f. Above 0.5, or with existing rows, whose similarity
    is taken off and not counted in, gains can become negative: the ranking goes on with the row
    that costs least and f falls from there on; `n_picks_with_gain` of the notes is the prefix with
    the largest f, and no bound is known.

    Source: Iyer, Khargoankar, Bilmes and Asanani 2021 (ALT), arXiv:2006.15412; as a function of
    sets Lin and Bilmes
    2009. The greedy algorithm is exact; the oracle of the tests is a plain one in float64.
    Cost: all pairs O(n^2 d) time once and O(n d) per pick; the kernel is never stored, so memory is
    O(n d). Sparse O(n n_neighbors) memory and a neighbor search. Needs: `embedding`; uses
    `existing_embedding` of the context, if there, as rows already picked. Ties: to the lowest row;
    gains within float32 error are compared in float64 first. Equal rows are picked one by one, each
    at the price of what it shares with the others. An empty pool is refused. Fails: with a small
    redundancy it takes the rows nearest to the mean of the pool, many of one kind. With 0.5 it lost
    to random rows by 0.11 to 0.17 of accuracy on rows in 77 classes, 13 of each
    (`benchmarks/selection_helps.py`).

    `covered_by` is the pick nearest to each row, EXISTING where an existing row is at least as
    near, -1 where nothing is more similar to it than 0; `similarity` is that cosine; `objective` is
    what f gains over the existing rows alone.

    Attributes:
        redundancy: price of similarity among the picks, lambda of the paper.
        kernel: "dense" compares all pairs, "sparse" only nearest neighbors, "auto" all pairs up to
            50,000 rows.
        n_neighbors: neighbors per row of the sparse kernel.

    Differs: cosines below 0 count as 0, which submodularity needs. It stands beside the greedy
    engine of the other methods (`greedy`), which closes intervals of all rows and for that needs
    the whole kernel in memory: here a pick changes the gains by its own row of the kernel alone,
    which is computed when it is needed.
    """

    name: ClassVar[str] = "graph-cut"
    ranks_only: ClassVar[bool] = True
    requirements: ClassVar[Requirements] = Requirements(
        features={"embedding"}, side_features={"existing": {"embedding"}}
    )

    redundancy: float = option(0.5, ge=0, le=1e6)
    kernel: Literal["auto", "dense", "sparse"] = "auto"
    n_neighbors: int = option(64, ge=1)

    def describe_plan(self, features: Features) -> str:
        """Say how pairs will be compared, in how much memory, and what is known of the picks.

        Raises:
            InputError: it does not fit into memory.
        """
        n, d = features["embedding"].shape
        plan = self._plan_memory(n, d)
        return plan.told(self.name, n, self._guarantee(plan, features))

    def estimate_memory(self, n_rows: int, n_unique: int, n_dimensions: int) -> int:
        """Return the peak in bytes beyond the features themselves."""
        return self._plan_memory(n_rows, n_dimensions).n_bytes

    def _plan_memory(self, n: int, d: int) -> MemoryPlan:
        kernel = self.kernel if self.kernel != "auto" else "dense" if n <= EXACT_ROWS else "sparse"
        return plan_streamed_memory(KernelSettings(self.name, kernel, self.n_neighbors, 0.0), n, d)

    def _guarantee(self, plan: MemoryPlan, features: Features) -> str:
        has_existing = len(features.context.get("existing_embedding", ())) > 0
        if self.redundancy == 0 or (self.redundancy <= 0.5 and not has_existing):
            return describe_guarantee("lazy", 0.0, plan.n_neighbors)
        why = "beside existing rows" if self.redundancy <= 0.5 else "with redundancy above 0.5"
        return f"exact greedy; no bound, the objective may fall {why}" + describe_restriction(plan.n_neighbors)

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows greedily; the others score -inf.

        Raises:
            InputError: the kernel does not fit into memory.
        """
        from thresher.selectors.neighbors.csr import Graph
        from thresher.selectors.submodular.kernels import build_kernel  # compiles on first use

        vectors = np.ascontiguousarray(features["embedding"], dtype=np.float32)  # (n, d)
        n = len(vectors)
        plan = self._plan_memory(*vectors.shape)
        unit = unit_rows(vectors)
        pairs: _Similarity = _AllPairs(unit, vectors)
        notes: dict[str, str | int | float] = {**plan.notes}
        if plan.kernel == "sparse":
            graph, notes = build_kernel(plan, unit, rng, features.products, features.store)
            assert isinstance(graph, Graph)
            pairs = _Neighbors(graph, vectors)
        existing = features.context.get("existing_embedding", vectors[:0])
        cut = _Cut(pairs, self.redundancy, np.ascontiguousarray(existing, dtype=np.float32), vectors, unit)
        with limit_blas():
            for _ in range(n_ranked):
                cut.add(cut.best())

        gains = np.asarray(cut.gains)
        negative = np.flatnonzero(gains < 0)
        ranking = np.asarray(cut.picks, np.int64)
        by, similarity = cut.by, cut.nearest
        by[ranking], similarity[ranking] = ranking, 1.0
        return Scores(
            row_id=features.row_id,
            value=ranked(n, ranking),
            by=self.name,
            covered_by=by,
            similarity=similarity.astype(np.float32),
            objective=np.cumsum(gains),
            notes={
                **notes,
                "guarantee": self._guarantee(plan, features),
                "n_gain_evaluations": cut.n_updates,
                "n_picks_with_gain": int(negative[0]) if len(negative) else n_ranked,
            },
        )


class _Similarity(Protocol):
    """Where similarities come from."""

    def sums(self) -> Float64:
        """Return the sum over all rows for each row, (n,)."""

    def row(self, pick: int) -> tuple[Int64 | slice, Float64]:
        """Return rows and their similarities to one of them."""

    def different(self, near: Int64) -> Int64:
        """Return the lowest row of each set in `near` whose exact gains must tie, ascending."""

    def exact(self, row: int, picks: list[int]) -> tuple[float, float]:
        """Return a row's similarity to all rows and to the picks, summed in float64 from vectors.

        From one call to the next, `picks` grows at its end.
        """


class _AllPairs:
    """Cosines of all pairs, computed when they are needed."""

    def __init__(self, unit: Float32, vectors: Float32) -> None:
        self._unit, self._vectors = unit, vectors
        self._group = distinct_rows(vectors).group
        self._known: dict[int, float] = {}  # by group
        # by group: how many picks are in the sum, and the sum
        self._shared: dict[int, tuple[int, float]] = {}

    def sums(self) -> Float64:
        from thresher.selectors.submodular.kernels import sum_cosines

        return sum_cosines(self._unit, self._unit)

    def row(self, pick: int) -> tuple[Int64 | slice, Float64]:
        return slice(None), np.maximum(self._unit @ self._unit[pick], 0).astype(np.float64)

    def different(self, near: Int64) -> Int64:
        return near[np.sort(np.unique(self._group[near], return_index=True)[1])]

    def exact(self, row: int, picks: list[int]) -> tuple[float, float]:
        group = int(self._group[row])
        one = self._vectors[row]
        if group not in self._known:
            self._known[group] = _cosine_sum(self._vectors, one)
        n_picks, shared = self._shared.get(group, (0, 0.0))
        shared += _cosine_sum(self._vectors[picks[n_picks:]], one)
        self._shared[group] = len(picks), shared
        return self._known[group], shared


class _Neighbors:
    """Cosines of a symmetric nearest-neighbor graph."""

    def __init__(self, graph: Graph, vectors: Float32) -> None:
        self._graph, self._vectors = graph, vectors
        self._is_pick = np.zeros(len(vectors), np.bool_)
        self._n_picks = 0

    def sums(self) -> Float64:
        from thresher.selectors.submodular.kernels import sum_similarities

        return sum_similarities(self._graph)

    def row(self, pick: int) -> tuple[Int64, Float64]:
        part = slice(self._graph.start[pick], self._graph.start[pick + 1])
        return self._graph.row[part].astype(np.int64), self._graph.similarity[part].astype(np.float64)

    def different(self, near: Int64) -> Int64:
        return near  # of equal rows, each has neighbors of its own

    def exact(self, row: int, picks: list[int]) -> tuple[float, float]:
        self._is_pick[picks[self._n_picks :]] = True
        self._n_picks = len(picks)
        rows, _ = self.row(row)
        picked = rows[self._is_pick[rows]]
        one = self._vectors[row]
        return _cosine_sum(self._vectors[rows], one), _cosine_sum(self._vectors[picked], one)


def _cosine_sum(rows: Float32, one: Float32) -> float:
    """Return the sum of the positive cosines of rows with one row, in float64, block by block."""
    single, total = one.astype(np.float64), 0.0
    for first in range(0, len(rows), 8192):
        wide = rows[first : first + 8192].astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", wide, wide)) * np.sqrt(single @ single)
        dot = np.maximum(np.einsum("ij,j->i", wide, single), 0)
        total += float(np.divide(dot, length, out=np.zeros_like(dot), where=length > 0).sum())
    return total


class _Cut:
    """State of a greedy run: the gain of every row, and what stands for it."""

    def __init__(
        self, pairs: _Similarity, redundancy: float, existing: Float32, vectors: Float32, unit: Float32
    ) -> None:
        from thresher.numeric.vectors import inverse_norms
        from thresher.selectors.submodular.kernels import similarity_to_existing, sum_cosines

        n = len(unit)
        self._pairs, self._redundancy = pairs, redundancy
        self._vectors, self._existing = vectors, existing
        # cosine of a row with itself
        self._own = (np.einsum("ij,ij->i", unit, unit) > 0).astype(np.float64)
        sums, before = pairs.sums(), sum_cosines(unit, unit_rows(existing))
        self._slack = DRIFT * float((sums + 2 * redundancy * before).max())
        self._before: dict[int, float] = {}  # in float64
        self.gain = sums - redundancy * (2 * before + self._own)
        self.nearest = similarity_to_existing(vectors, inverse_norms(vectors), existing)
        self.by = np.where(self.nearest > 0, EXISTING, -1)
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.n_updates = n

    def best(self) -> int:
        """Return the row of the largest gain, the lowest of equal ones."""
        most = float(self.gain.max())
        near = np.flatnonzero(self.gain >= most - CLOSE * (1 + abs(most)) - self._slack)
        near = near if len(near) == 1 else self._pairs.different(near)[:N_COMPARED]
        if len(near) == 1:
            return int(near[0])
        exact = np.array([self._exact(int(row)) for row in near])
        return int(near[np.flatnonzero(exact >= exact.max() - EQUAL * (1 + abs(exact.max())))[0]])

    def _exact(self, row: int) -> float:
        total, shared = self._pairs.exact(row, self.picks)
        if row not in self._before:
            self._before[row] = _cosine_sum(self._existing, self._vectors[row])
        return total - self._redundancy * (2 * (shared + self._before[row]) + float(self._own[row]))

    def add(self, pick: int) -> None:
        """Add a pick and lower the gains of the rows that are like it."""
        rows, similarity = self._pairs.row(pick)
        self.picks.append(pick)
        self.gains.append(float(self.gain[pick]))
        self.gain[rows] -= 2 * self._redundancy * similarity
        self.gain[pick] = -np.inf
        self.n_updates += len(similarity)
        nearest = self.nearest[rows]
        is_nearer = similarity > nearest
        self.nearest[rows] = np.maximum(nearest, similarity)
        self.by[rows] = np.where(is_nearer, pick, self.by[rows])
