"""Nearest neighbors among all rows by inverted lists and matrix products, with measured recall.

An index that answers one query after another reads each list again for each. Here all queries are
known: each list is multiplied once with all rows that look into it, which runs at the speed of
matrix products. The work per row hardly grows with their number, because lists keep their size and
are found through groups of lists.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thresher.numeric.arrays import Float32, Int32, Int64
from thresher.numeric.kmeans import fit_spherical_centroids
from thresher.numeric.matmul import LoadedRows, MatmulBackend
from thresher.numeric.numba_jit import jit
from thresher.numeric.threads import count_threads
from thresher.numeric.vectors import unit_rows

LIST_ROWS = 128  # rows per list on average
# no list has more than so many times LIST_ROWS: where many rows are equal, several share a center
LONGEST = 8
SAMPLED_PER_LIST = 64  # rows that its center is found from
N_ITERATIONS = 8  # of k-means
N_GROUPS_TRIED = 3  # groups of lists in which the list of a row is sought
N_NEAR = 256  # lists around a row's own, of which it looks into the nearest
FIRST_COMPARED = 2_048  # rows that each row is compared with, raised until the recall is there
MAX_COMPARED = 16_384  # ... or the work is this much: it does not grow with the number of rows
STEP = 2**0.25
N_SAMPLED = 1_000  # rows whose true neighbors are found, to measure the recall
BLOCK_ROWS = 1 << 18  # rows searched at a time: bounds the memory of their lists
PRODUCT_ENTRIES = 4 << 20  # of one matrix product: bounds the memory
EQUAL = 1e-6  # cosines this near are equal in float32


class ListSearch(NamedTuple):
    """Neighbors and how good they are.

    Attributes:
        row: (n, k) int32, the rows found nearest to each row, itself included, in no order; -1
            where there were fewer.
        by_list: (n,) int32, the rows list by list: those near each other in it are near.
        recall: share of the true k nearest that were found, measured on a sample.
        n_lists: number of inverted lists.
        n_compared: rows that each row was compared with, on average.
    """

    row: Int32
    by_list: Int32
    recall: float
    n_lists: int
    n_compared: float


class _Lists(NamedTuple):
    """Rows by list.

    Attributes:
        start: (n_lists + 1,) list l has the entries `start[l]:start[l + 1]`.
        row: (m,) int32, ascending within a list; a row may be in several.
    """

    start: Int64
    row: Int32

    def rows(self, number: int) -> Int32:
        """Return the rows of one list."""
        return self.row[self.start[number] : self.start[number + 1]]


class _Nearest(NamedTuple):
    """The k rows found nearest to each query so far, as heaps with the least similar first.

    Attributes:
        similarity: (q, k) float32.
        row: (q, k) int32.
    """

    similarity: Float32
    row: Int32

    @classmethod
    def none(cls, n_queries: int, k: int) -> _Nearest:
        """Return the state before anything was found."""
        return cls(np.full((n_queries, k), -np.inf, np.float32), np.full((n_queries, k), -1, np.int32))


class _Index(NamedTuple):
    """Inverted lists over rows.

    Attributes:
        center: (n_lists, d) float32, of length 1.
        own: (n,) int32, the list each row is in.
        lists: the rows of each list.
        near: (n_lists, c) int32, the lists nearest to each, itself first.
    """

    center: Float32
    own: Int32
    lists: _Lists
    near: Int32


def search_inverted_lists(
    unit: Float32, k: int, rng: np.random.Generator, products: MatmulBackend, *, min_recall: float
) -> ListSearch:
    """Find the k rows of largest cosine for each row.

    Each row is compared with those in the nearest lists. How many rows these hold is raised from
    2,048 until the recall is there, but not beyond 16,384: what recall that gives is measured and
    told.

    Cost: O(n (MAX_COMPARED + sqrt(n)) d) time; 8 n k bytes beside the rows, which are not copied.

    Args:
        unit: (n, d) float32 rows of length 1 (or 0).
        k: how many, the row itself included; 1..n.
        rng: seeds the lists and draws the sample that measures them.
        products: where queries are compared with the rows of a list.
        min_recall: share of the true neighbors that is enough.
    """
    import faiss

    n = len(unit)
    held = products.load_rows(unit)
    index = _index(unit, held, rng, products)
    sample = np.sort(rng.choice(n, min(N_SAMPLED, n), replace=False))
    truth, _ = faiss.knn(unit[sample], unit, k, metric=faiss.METRIC_INNER_PRODUCT)
    found, n_before, n_compared = _Nearest.none(len(sample), k), 0.0, float(FIRST_COMPARED)
    while True:
        _search(unit, held, sample, index, (n_before, n_compared), found)
        recall = float((found.similarity >= truth[:, -1:] - EQUAL).mean())
        if recall >= min_recall or n_compared >= min(MAX_COMPARED, n):
            break
        n_before, n_compared = n_compared, min(STEP * n_compared, MAX_COMPARED)
    nearest = _Nearest.none(n, k)
    n_products = _search(unit, held, np.arange(n), index, (0.0, n_compared), nearest)
    return ListSearch(nearest.row, index.lists.row, recall, len(index.center), n_products / n)


def _index(unit: Float32, held: LoadedRows, rng: np.random.Generator, products: MatmulBackend) -> _Index:
    """Cluster a sample into groups, each group into lists, and put rows into the nearest list."""
    n = len(unit)
    n_lists = max(n // LIST_ROWS, 1)
    n_groups = max(int(n_lists**0.5), 1)
    sample = unit[np.sort(rng.choice(n, min(SAMPLED_PER_LIST * n_lists, n), replace=False))]
    group_center = _centers(sample[: SAMPLED_PER_LIST * 4 * n_groups], n_groups, rng)
    nearest_group = _largest(sample, group_center, 1)[:, 0]
    parts = []
    for group in range(len(group_center)):
        mine = sample[nearest_group == group]
        if len(mine):
            parts.append(_centers(mine, max(round(n_lists * len(mine) / len(sample)), 1), rng))
    center = np.concatenate(parts)
    of_group = np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int32)
    middle = unit_rows(np.stack([part.mean(axis=0) for part in parts]))
    groups = _by_list(of_group[:, None], len(parts))
    nearest = _Nearest.none(n, 1)
    tried = _largest(unit, middle, min(N_GROUPS_TRIED, len(parts)))
    _compare_lists(held, np.arange(n), products.load_rows(center), groups, tried, nearest)
    own, origin = _dealt_out(nearest.row[:, 0], len(center))
    center = center[origin]
    lists = _by_list(own[:, None], len(center))
    return _Index(center, own, lists, _find_nearest_lists(center))


def _dealt_out(own: Int32, n_lists: int) -> tuple[Int32, Int64]:
    """Deal the rows of lists that are too long out to several.

    Without it, rows that are all equal or zero would lie in one list, and each be compared with
    each.

    Returns:
        (n,) the list of each row now, (n_lists now,) the list that each one was before.
    """
    lists, longest = _by_list(own[:, None], n_lists), LONGEST * LIST_ROWS
    size = np.diff(lists.start)
    n_parts = np.maximum(-(-size // longest), 1)
    place = np.empty(len(own), np.int64)  # of each row in its list
    place[lists.row] = np.arange(len(own)) - np.repeat(lists.start[:-1], size)
    first = np.cumsum(n_parts) - n_parts
    return (first[own] + place // longest).astype(np.int32), np.repeat(np.arange(n_lists), n_parts)


def _centers(x: Float32, n_centers: int, rng: np.random.Generator) -> Float32:
    """Return the centers of spherical k-means, at most as many as rows."""
    n_centers = min(n_centers, len(x))
    return fit_spherical_centroids(x, n_centers, rng, n_iterations=N_ITERATIONS, n_points=4 * SAMPLED_PER_LIST)


def _largest(x: Float32, y: Float32, k: int) -> Int32:
    """Return for each row of x the k rows of y of largest product, in no order: (n, k)."""
    out = np.empty((len(x), k), np.int32)
    step = max(PRODUCT_ENTRIES // len(y), 1)
    for first in range(0, len(x), step):
        product = x[first : first + step] @ y.T
        out[first : first + step] = np.argpartition(product, len(y) - k, axis=1)[:, len(y) - k :]
    return out


def _find_nearest_lists(center: Float32) -> Int32:
    """Return the lists nearest to each list, itself first: (n_lists, c)."""
    n = len(center)
    k = min(N_NEAR, n)
    out = np.empty((n, k), np.int32)
    step = max(PRODUCT_ENTRIES // n, 1)
    for first in range(0, n, step):
        product = center[first : first + step] @ center.T
        own = np.arange(len(product))
        product[own, first + own] = np.inf
        at = np.argpartition(product, n - k, axis=1)[:, n - k :]
        order = np.argsort(-np.take_along_axis(product, at, axis=1), axis=1, kind="stable")
        out[first : first + step] = np.take_along_axis(at, order, axis=1)
    return out


def _search(
    unit: Float32,
    held: LoadedRows,
    queries: Int64,
    index: _Index,
    between: tuple[float, float],
    nearest: _Nearest,
) -> int:
    """Search for the neighbors of some rows; returns the number of pairs compared.

    Args:
        unit: (n, d) rows.
        held: the same, where they are multiplied.
        queries: (q,) rows.
        index: of the rows.
        between: the lists are searched that begin so many rows from a query, (from, below).
        nearest: of the queries, updated.
    """
    n_products = 0
    for first in range(0, len(queries), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        part = _Nearest(nearest.similarity[block], nearest.row[block])
        probes = _probes(unit, queries[block], index, between)
        # each row's own list first: what is found there spares most of the insertions later
        n_products += _compare_lists(held, queries[block], held, index.lists, probes[:, :1], part)
        n_products += _compare_lists(held, queries[block], held, index.lists, probes[:, 1:], part)
    return n_products


def _probes(unit: Float32, queries: Int64, index: _Index, between: tuple[float, float]) -> Int32:
    """Return the lists to search for each query, (q, p): its own first, -1 for none."""
    n_lists, n_near = index.near.shape
    size = np.diff(index.lists.start)
    n_first = min(2 * int(between[1] / LIST_ROWS) + 8, n_near)
    probes = np.full((len(queries), n_first), -1, np.int32)
    mine = _by_list(index.own[queries][:, None], n_lists)
    for number in np.flatnonzero(np.diff(mine.start)).tolist():
        at, near = mine.rows(number), index.near[number]
        product = unit[queries[at]] @ index.center[near].T
        product[:, 0] = np.inf  # its own list
        chosen = near[_order_largest(product, n_first)]
        before = np.cumsum(size[chosen], axis=1) - size[chosen]
        # the first lists may be short: then all are put in order
        if n_first < n_near and (before[:, -1] < between[1]).any():
            chosen = near[_order_largest(product, n_near)]
            probes = np.pad(probes, ((0, 0), (0, n_near - probes.shape[1])), constant_values=-1)
            before = np.cumsum(size[chosen], axis=1) - size[chosen]
        is_asked = (before >= between[0]) & (before < between[1])
        probes[at, : chosen.shape[1]] = np.where(is_asked, chosen, -1)
    return probes


def _order_largest(product: Float32, k: int) -> Int64:
    """Return the places of the k largest of each row, the largest first: (q, k)."""
    if k == product.shape[1]:
        return np.argsort(-product, axis=1)
    at = np.argpartition(product, product.shape[1] - k, axis=1)[:, product.shape[1] - k :]
    order = np.argsort(-np.take_along_axis(product, at, axis=1), axis=1)
    return np.take_along_axis(at, order, axis=1)


def _compare_lists(
    x: LoadedRows, queries: Int64, base: LoadedRows, lists: _Lists, probes: Int32, nearest: _Nearest
) -> int:
    """Compare each query with the rows of its lists; returns the number of pairs.

    Args:
        x: n rows, of which `queries` are some.
        queries: (q,) rows.
        base: m rows that lie in the lists.
        lists: rows of the base.
        probes: (q, p) lists of each query, all different; -1 for none.
        nearest: of the queries, updated.
    """
    asking = _by_list(probes, len(lists.start) - 1)
    n_products = 0
    n_parts = count_threads()
    with ThreadPoolExecutor(n_parts) as pool:

        def keep(product: Float32, rows: NDArray[np.integer[Any]], part: Int32) -> None:
            edges = np.linspace(0, len(part), n_parts + 1).astype(np.int64).tolist()
            others = [pool.submit(_keep_largest, product, rows, part, e, *nearest) for e in pairwise(edges[1:])]
            _keep_largest(product, rows, part, (edges[0], edges[1]), *nearest)
            for other in others:
                other.result()

        for number in np.flatnonzero(np.diff(asking.start)).tolist():
            member, at = lists.rows(number), asking.rows(number)
            if len(member) == 0:
                continue
            step = max(PRODUCT_ENTRIES // len(member), 1)
            for first in range(0, len(at), step):
                part = at[first : first + step]
                product, rows = x.largest_products(queries[part], base, member, nearest.row.shape[1])
                keep(product, rows, part)
            n_products += len(member) * len(at)
    return n_products


def _by_list(number: NDArray[np.integer[Any]], n_lists: int) -> _Lists:
    """Return the rows of (n, p) list numbers by list; -1 is in none."""
    count = np.zeros(n_lists + 1, np.int64)
    _count(number, count)
    start = np.cumsum(count)
    row = np.empty(start[-1], np.int32)
    _deal(number, start[:-1].copy(), row)
    return _Lists(start, row)


@jit
def _count(number: Any, count: Any) -> None:
    """Count the rows of list l at l + 1."""
    for i in range(number.shape[0]):
        for j in range(number.shape[1]):
            if number[i, j] >= 0:
                count[number[i, j] + 1] += 1


@jit
def _deal(number: Any, at: Any, row: Any) -> None:
    """Write each row behind the others of its lists."""
    for i in range(number.shape[0]):
        for j in range(number.shape[1]):
            if number[i, j] >= 0:
                # `at[l]` is the next free place of list l
                row[at[number[i, j]]] = i
                at[number[i, j]] += 1


@jit
def _keep_largest(product: Any, member: Any, query: Any, part: Any, similarity: Any, row: Any) -> None:
    """Put the products of some queries with members of a list into the queries' heaps."""
    k = similarity.shape[1]
    for a in range(part[0], part[1]):
        s, r = similarity[query[a]], row[query[a]]
        for b in range(product.shape[1]):
            value = product[a, b]
            # not above the least of the k that are kept
            if not value > s[0]:
                continue
            # the least is dropped: sift the new value down from the root of the heap
            i, child = 0, 1
            while child < k:
                # the smaller child moves up, until the value is below both
                if child + 1 < k and s[child + 1] < s[child]:
                    child += 1
                if s[child] >= value:
                    break
                s[i], r[i] = s[child], r[child]
                i, child = child, 2 * child + 1
            s[i], r[i] = value, member[a, b]
