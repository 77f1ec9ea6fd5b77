"""DELIFT: rows that help the model most: with the pool, a target, or beyond what it has learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.features.context import N_EXAMPLES
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float64, Int64
from thresher.numeric.vectors import inverse_norms
from thresher.selectors.contract import FeatureKernelSelector
from thresher.selectors.submodular.optimizers import describe_guarantee
from thresher.subset.scores import EXISTING, Scores, ranked
from thresher.validation import option

N_NEIGHBORS = 64  # of the embedding kernel, where a pair costs next to nothing
MAX_ALL_ROWS = 10_000  # 10^8 pairs


class _Kernel(NamedTuple):
    """Worth s_ij >= 0 of candidates j for rows i, as pairs.

    Attributes:
        row, candidate: (p,) int64.
        worth: (p,) float64.
        target: (n,) float64, largest worth of a target row for each row, or None.
        existing: (n,) float64, largest worth of a row that is there already, or None.
        is_usable: (n,) bool, whether a row has a value at all.
    """

    row: Int64
    candidate: Int64
    worth: Float64
    target: Float64 | None
    existing: Float64 | None
    is_usable: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Delift(FeatureKernelSelector):
    """Rank rows so that every prefix helps the model most, as examples, with the rest (DELIFT).

    Optimizes, with s_ij the worth of row j as an example for row i, clipped at 0: alone, f(A) =
    sum_i max_{j in A} s_ij (instruction tuning, facility location); with --target rows Q, f(A) =
    sum_i min(max_{j in A} s_ij, eta max_{q in Q} s_iq) (task-specific, FLMI); with --existing rows
    P, f(A) = sum_i max(max_{j in A} s_ij - nu max_{p in P} s_ip, 0) (continual, FLCG); with both,
    max(min(max_A, eta max_Q) - nu max_P, 0). The worth is the in-context utility: how much nearer
    the model comes to the tokens of response i, sqrt(mean (1 - p)^2), once example j stands in the
    prompt. Each pick raises f most; f is monotone submodular on the pairs that are compared.

    Source: Agarwal, Killamsetty, Popa and Danilevsky, ICLR 2025, arXiv:2411.04425. The greedy
    algorithm is exact, in float64; the oracle of the tests is a plain one on a dense kernel. Cost:
    the model reads each example once, half of the neighbors once more, and each row once alone and
    once behind each of its examples: about n (neighbors + 3) rows' tokens instead of the 2 n^2 of
    all pairs without a prefix cache; then a few updates of n neighbors gains. The embedding kernel
    needs no model: a neighbor search. Needs: `in_context_utility` (with `embedding` for the
    neighbors), or `embedding` alone; uses `target_*` and `existing_*` of the context. Ties: to the
    lowest row. When nothing more can be gained (FLMI soon has all it can use), those follow that
    would do most alone. Equal rows help alike and are picked one by one. An empty pool is refused.
    A row with no response token to score is excluded with its reason. Fails: a small model follows
    examples badly: in the authors' own follow-up, DistilGPT2 as the model did worse than embeddings
    alone (arXiv:2502.09969), and no published result has error bars. Nearness says little of worth:
    with the toy `tiny`, the cosine of two rows and the utility of one for the other had a
    correlation within 0.04 of 0 on product listings and on GSM8K, and at 5 and 10 % the picks of
    the embedding kernel reached less of f than random rows. Not to try all pairs is an
    approximation that is not in the paper: an example that was not tried counts as no help.

    `covered_by` is the pick that does most for each row, EXISTING where an existing row does at
    least as much, -1 where none does anything; `objective` is f after each pick.

    Attributes:
        kernel: "in_context_utility" asks the language model, "embedding" takes the cosine,
            clipped at 0.
        neighbors: how many other rows are tried as examples of each row; "all" for all pairs;
            default: 64. Of the utility kernel a quarter are its nearest rows, a quarter are drawn,
            and half are those that helped most of all that were tried, the same for every row; of
            the embedding kernel all are its nearest.
        scale: "clip" (harm counts as 0) or "min-max" (the whole kernel to 0..1, as in the official
            code).
        eta: of FLMI, how far above the target's own worth a pick still counts.
        nu: of FLCG, how much of what is there already is taken off.

    Differs: the official kernel files are not followed where they leave the paper: no sampling, no
    truncation to 16 tokens, one scale for the whole kernel, the example read from the right side,
    and no row without tokens counted as perfect. The query's words are the same with and without an
    example, so that the same tokens are scored. The paper tries all pairs; with 64 examples a row
    the picks reached 0.95 to 1.00 of the f of all pairs on 120 to 500 rows of three data sets (5 to
    30 % picked; random rows 0.32 to 0.90), the 64 nearest alone 0.94 to 1.00, the 16 nearest 0.87
    to 1.00; with existing rows 0.86 to 1.00.
    """

    name: ClassVar[str] = "delift"
    ranks_only: ClassVar[bool] = True

    kernel: Literal["in_context_utility", "embedding", "utility"] = "in_context_utility"
    neighbors: int | Literal["all"] | None = option(None, ge=1)
    scale: Literal["clip", "min-max"] = "clip"
    eta: float = option(1.0, ge=0, le=1e6)
    nu: float = option(1.0, ge=0, le=1e6)

    @property
    def requirements(self) -> Requirements:
        """The kernel's feature of the pool and the other rows, and how many examples a row gets."""
        return Requirements(
            features={self.kernel},
            side_features={"target": {self.kernel}, "existing": {self.kernel}},
            feature_settings={"n_examples": self._n_neighbors(N_EXAMPLES)}
            if self.kernel == "in_context_utility"
            else {},
        )

    def _n_neighbors(self, default: int) -> int | None:
        if self.neighbors == "all":
            return None
        return default if self.neighbors is None else self.neighbors

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows greedily, or as many as have a value; the others score -inf.

        Raises:
            InputError: all pairs are asked for and are too many.
        """
        from thresher.selectors.submodular.sparse_facility import (
            Pairs,
            cover_pairs,
            limit_to_target,
            subtract_existing,
        )

        n = features.n_rows
        kernel = self._embedding_kernel(features, rng) if self.kernel == "embedding" else self._utility_kernel(features)
        may_count = kernel.is_usable[kernel.row] & kernel.is_usable[kernel.candidate]
        pairs = Pairs(kernel.row[may_count], kernel.candidate[may_count], kernel.worth[may_count])
        if kernel.target is not None:
            pairs = limit_to_target(pairs, kernel.target, self.eta)
        if kernel.existing is not None:
            pairs = subtract_existing(pairs, kernel.existing, self.nu)
        candidates = np.flatnonzero(kernel.is_usable)
        covered = cover_pairs(pairs, candidates, min(n_ranked, len(candidates)), n)
        by = covered.by.copy()
        if kernel.existing is not None:
            by[(by < 0) & (kernel.existing > 0) & kernel.is_usable] = EXISTING
        by[covered.picks] = covered.picks
        return Scores(
            row_id=features.row_id,
            value=ranked(n, covered.picks),
            by=self.name,
            covered_by=by,
            excluded=features.missing.get(self.kernel),
            objective=np.cumsum(covered.gains),
            notes={
                "stage": _stage(kernel),
                "n_pairs": int(may_count.sum()),
                "n_pair_updates": covered.n_visited,
                "guarantee": describe_guarantee("lazy", 0.0) + ", on the pairs that are compared",
                "n_picks_with_gain": covered.n_with_gain,
            },
        )

    def _utility_kernel(self, features: Features) -> _Kernel:
        """Return the measured pairs with their utility, clipped at 0 or scaled by its range."""
        measured = features["in_context_utility"]  # (n, m) of a position and a utility
        n, m = measured.shape
        row, candidate = np.repeat(np.arange(n), m), measured["example"].reshape(-1)
        utility = measured["utility"].reshape(-1)  # (n m,) float64, NaN for rows without a value
        is_usable = np.isfinite(measured["utility"]).all(axis=1)
        others = {role: _largest(features.context.get(f"{role}_in_context_utility")) for role in ("target", "existing")}
        if self.scale == "min-max":
            known = [part[np.isfinite(part)] for part in (utility, *others.values()) if part is not None]
            low, high = utility[np.isfinite(utility)].min(initial=np.inf), np.concatenate(known).max(initial=-np.inf)
            span = high - low if high > low else 1.0
        else:
            low, span = 0.0, 1.0

        def scaled(value: Float64) -> Float64:
            above: Float64 = np.where(np.isfinite(value), np.maximum((value - low) / span, 0), 0.0)
            return above

        side = {role: None if value is None else scaled(value) for role, value in others.items()}
        return _Kernel(row, candidate, scaled(utility), side["target"], side["existing"], is_usable)

    def _embedding_kernel(self, features: Features, rng: np.random.Generator) -> _Kernel:
        from thresher.selectors.neighbors.search import build_neighbor_graph
        from thresher.selectors.submodular.kernels import similarity_to_existing

        vectors = np.ascontiguousarray(features["embedding"], dtype=np.float32)  # (n, d)
        n = len(vectors)
        n_neighbors = self._n_neighbors(N_NEIGHBORS)
        if n_neighbors is None and n > MAX_ALL_ROWS:
            raise InputError(
                f"{self.name}: neighbors='all' takes at most {MAX_ALL_ROWS:,} rows, got {n:,}; set a number"
            )
        scale = inverse_norms(vectors)
        unit = vectors * scale.astype(np.float32)[:, None]
        k = n if n_neighbors is None else n_neighbors
        graph = build_neighbor_graph(unit, k, rng, features.products, features.store).graph
        row = np.repeat(np.arange(n), np.diff(graph.start))
        worth: Float64 = graph.similarity.astype(np.float64).round(6)  # float32 knows no more
        others = {
            role: None if rows is None else similarity_to_existing(vectors, scale, rows)
            for role, rows in ((role, features.context.get(f"{role}_embedding")) for role in ("target", "existing"))
        }
        usable = np.ones(n, dtype=np.bool_)
        return _Kernel(row, graph.row.astype(np.int64), worth, others["target"], others["existing"], usable)


def _largest(measured: NDArray[Any] | None) -> Float64 | None:
    """Return the largest utility of each row's examples, (n,) float64, or None."""
    if measured is None:
        return None
    largest: Float64 = measured["utility"].max(axis=1)
    return largest


def _stage(kernel: _Kernel) -> str:
    if kernel.target is None:
        return "instruction tuning" if kernel.existing is None else "continual"
    return "task-specific" if kernel.existing is None else "task-specific and continual"
