"""Unit vectors and groups of equal rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Array, Float32, Float64, Int64, UInt64

N_AT_ONCE = 8_192  # rows compared per block


class Distinct(NamedTuple):
    """The distinct rows of a matrix.

    Attributes:
        first: (u,) position of the first row of each group of equal rows, ascending.
        group: (n,) which of the u groups each row belongs to.
        size: (u,) rows in each group.
    """

    first: Int64
    group: Int64
    size: Int64


def unit_rows(x: Array, *, round_once: bool = False) -> Float32:
    """Return the rows scaled to length 1, (n, d) float32; a zero row stays zero.

    Args:
        x: (n, d) numbers.
        round_once: multiply in float64 and round the product; by default the scale is rounded
            first, and a component may differ in the last bit.
    """
    x = np.ascontiguousarray(x, dtype=np.float32)
    scale = inverse_norms(x)[:, None]
    if not round_once:
        return x * scale.astype(np.float32)
    unit = np.empty_like(x)
    for first in range(0, len(x), N_AT_ONCE):
        block = slice(first, first + N_AT_ONCE)
        unit[block] = x[block] * scale[block]
    return unit


def inverse_norms(x: Float32) -> Float64:
    """Return 1 / length of each row, (n,) float64, accumulated in float64.

    It is 0 for a zero row, and for one so short that float32 cannot hold it.
    """
    norm = np.sqrt(np.einsum("ij,ij->i", x, x, dtype=np.float64))
    is_long = norm >= np.finfo(np.float32).tiny
    scale: Float64 = np.divide(1.0, norm, out=np.zeros_like(norm), where=is_long)
    return scale


def distinct_rows(x: Float32) -> Distinct:
    """Group the rows that are equal in every component (0.0 and -0.0 are equal)."""
    _, first, group = np.unique(_row_hashes(x), return_index=True, return_inverse=True)
    if len(first) < len(x) and not _are_equal(x, first[group]):  # hashes collide: compare the rows
        _, first, group = np.unique(x + np.float32(0.0), axis=0, return_index=True, return_inverse=True)
        group = group.reshape(-1)
    # groups come in the order of their hashes: number them by their first row instead
    order = np.argsort(first)
    new_number = np.empty_like(order)
    new_number[order] = np.arange(len(order))
    group = new_number[group]
    return Distinct(first[order].astype(np.int64), group.astype(np.int64), np.bincount(group).astype(np.int64))


def _are_equal(x: Float32, other: Int64) -> bool:
    """Tell whether each row i equals row other[i], block by block: x may be larger than memory."""
    rows = np.flatnonzero(other != np.arange(len(x)))
    blocks = (rows[first : first + N_AT_ONCE] for first in range(0, len(rows), N_AT_ONCE))
    return all(bool((x[block] == x[other[block]]).all()) for block in blocks)


def _row_hashes(x: Float32) -> UInt64:
    """Return a 64-bit hash of each row, (n,): a sum of multiples of its pairs of components."""
    n, d = x.shape
    multiplier = np.random.default_rng(0).integers(1 << 64, size=(d + 1) // 2, dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(n, np.uint64)
    for first in range(0, n, 512):  # blocks that stay in the cache
        block = x[first : first + 512]
        rows = np.zeros((len(block), d + d % 2), np.float32)  # an even number of components
        np.add(block, np.float32(0.0), out=rows[:, :d])  # -0.0 + 0.0 = 0.0
        words = rows.view(np.uint64)
        words ^= words >> np.uint64(29)  # differences in signs alone would cancel in the sum
        hashes[first : first + 512] = np.einsum("ij,j->i", words, multiplier)
    return hashes
