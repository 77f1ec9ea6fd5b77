"""The symmetric nearest-neighbor graph of a set of rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from thresher.numeric.array_store import NO_STORE, ArrayStore, StoredArrays
from thresher.numeric.arrays import Float32
from thresher.numeric.matmul import NUMPY, MatmulBackend
from thresher.selectors.neighbors.csr import Graph
from thresher.selectors.neighbors.graph import build_symmetric_graph
from thresher.selectors.neighbors.inverted_lists import FIRST_COMPARED, search_inverted_lists
from thresher.selectors.neighbors.limits import FLAT_ROWS

EXACT_ROWS = FLAT_ROWS  # up to here every pair is compared; beyond, inverted lists
MIN_RECALL = 0.95  # that the inverted lists aim at, on a sample
VERSION = 2  # of how a graph is built; raise it when other graphs come out
N_AT_ONCE = 4_096  # rows searched per call: bounds the memory of the answers


class Neighbors(NamedTuple):
    """A graph and how good it is.

    Attributes:
        graph: pairs where one row is among the other's nearest, cosine > 0, and every row with
            itself.
        search: "flat" (exact) or "inverted lists".
        recall: share of the true nearest neighbors found, measured on a sample; 1.0 for "flat".
        products: where cosines were computed.
    """

    graph: Graph
    search: str
    recall: float
    products: str


def build_neighbor_graph(
    unit: Float32,
    n_neighbors: int,
    rng: np.random.Generator,
    products: MatmulBackend = NUMPY,
    store: ArrayStore = NO_STORE,
) -> Neighbors:
    """Join each row to its nearest rows by cosine, both ways.

    Args:
        unit: (n, d) float32 rows of length 1 (or 0).
        n_neighbors: per row, itself not counted.
        rng: seeds the inverted lists and draws the sample that measures them.
        products: where the rows of the lists are compared, if that is worth it.
        store: where a graph of the same rows is found again, and a new one kept.
    """
    k = min(n_neighbors + 1, len(unit))  # each row finds itself
    is_exact = len(unit) <= EXACT_ROWS
    # drawn here whether or not the graph is in the store, so that later draws are the same
    seed = None if is_exact else int(rng.integers(1 << 62))
    there = NUMPY if is_exact else products.choose_backend(len(unit) * FIRST_COMPARED * unit.shape[1], unit.nbytes)

    def compute() -> StoredArrays:
        if seed is None:
            graph, facts = build_symmetric_graph(unit, _nearest_of_all(unit, k)), {"search": "flat", "recall": 1.0}
        else:
            search = search_inverted_lists(unit, k, np.random.default_rng(seed), there, min_recall=MIN_RECALL)
            graph = build_symmetric_graph(unit, search.row, search.by_list)
            facts = {"search": "inverted lists", "recall": search.recall}
        return StoredArrays(graph._asdict(), facts)

    key = {"what": "neighbor graph", "version": VERSION, "k": k, "seed": seed, "products": there.name}
    key |= {"shape": list(unit.shape), "rows": xxhash.xxh3_128_hexdigest(np.ascontiguousarray(unit).data)}
    stored = store.load_or_compute(key, compute)
    return Neighbors(Graph(**stored.arrays), stored.facts["search"], stored.facts["recall"], there.name)


def _nearest_of_all(unit: Float32, k: int) -> NDArray[np.int32]:
    """Return the k nearest of each row, (n, k)."""
    import faiss

    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    nearest = np.empty((len(unit), k), np.int32)
    for first in range(0, len(unit), N_AT_ONCE):
        nearest[first : first + N_AT_ONCE] = index.search(unit[first : first + N_AT_ONCE], k)[1]
    return nearest
