"""Which examples are tried with which rows, where trying all of them would cost too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresher.numeric.arrays import Float64, Int64

RECIPE = "tried-1"
BLOCK_ROWS = 1024  # rows whose nearest examples are searched at a time
# of the alternating fit; each row and example has few measurements, so that it settles soon
N_ROUNDS = 20
PRIOR = 1.0  # measurements of no effect that each row and each example is taken to have


@dataclass(frozen=True)
class ExampleCounts:
    """How many examples a row is tried with, by the reason they are chosen for.

    A quarter are its nearest, which help it if any does; a quarter are sampled, so that every
    example is tried with as many rows and its effect can be told; half are those that then have
    helped most, the same for all rows.

    Attributes:
        nearest, sampled, best: numbers of examples.
    """

    nearest: int
    sampled: int
    best: int

    @classmethod
    def divide(cls, m: int) -> ExampleCounts:
        """Divide m examples."""
        nearest, sampled = max(1, m // 4), m // 4
        return cls(nearest, sampled, m - nearest - sampled)


def first_tried(
    x: NDArray[np.float32],
    examples: NDArray[np.float32],
    counts: ExampleCounts,
    names: tuple[Sequence[str], Sequence[str]],
) -> Int64:
    """Return (n, nearest + sampled) the examples that are tried first, the nearest before the rest.

    Args:
        x: (n, d) unit rows.
        examples: (q, d) unit rows, or `x` itself: a row then comes first among its own examples,
            besides the others.
        counts: their numbers; at most q of them in all.
        names: (n,) of rows and (q,) of examples, random strings: what is sampled follows from them
            and not from places.
    """
    is_own = examples is x
    nearest = nearest_examples(x, examples, counts.nearest + is_own, is_own=is_own)
    return np.concatenate([nearest, _sample_evenly(names, nearest, counts.sampled)], axis=1)


def nearest_examples(x: NDArray[np.float32], examples: NDArray[np.float32], m: int, *, is_own: bool) -> Int64:
    """Return the `m` nearest examples of each row by cosine, (n, m), itself first if it is one.

    Cosines are compared to six digits, and what is equal goes to the lowest example.
    """
    nearest = np.empty((len(x), m), dtype=np.int64)
    for first in range(0, len(x), BLOCK_ROWS):
        block = np.round(x[first : first + BLOCK_ROWS] @ examples.T, 6)
        if is_own:
            own = np.arange(len(block))
            block[own, first + own] = np.inf
        nearest[first : first + BLOCK_ROWS] = np.argsort(-block, axis=1, kind="stable")[:, :m]
    return nearest


def _sample_evenly(names: tuple[Sequence[str], Sequence[str]], tried: Int64, m: int) -> Int64:
    """Return (n, m) further examples of each row, each example nearly as often as any other.

    Rows and examples stand in the order of their names; a row is given the examples at the same
    distances from its own place as all other rows, passing over those it is tried with already.
    """
    rows, examples = (np.asarray(part) for part in names)
    order = np.argsort(examples, kind="stable")  # (q,)
    place = np.searchsorted(examples[order], rows)  # (n,) where each row stands among the examples
    q, width = len(examples), tried.shape[1]
    # every row takes the same steps from its own place, so each example is reached equally often
    steps = np.random.default_rng(0).permutation(q)[: m + width]
    candidates = order[(place[:, None] + steps) % q]  # (n, m + width), so many that m are left
    return _not_tried(candidates, tried, m)


def best_tried(tried: Int64, utility: Float64, n_examples: int, m: int) -> Int64:
    """Return (n, m) the examples that helped most so far and that each row has not been tried with.

    Args:
        tried: (n, k) examples.
        utility: (n, k), NaN in rows without a value.
        n_examples: number of examples, at least k + m.
        m: how many.
    """
    order = np.argsort(-np.round(effects(tried, utility, n_examples), 9), kind="stable")
    candidates = np.broadcast_to(order[: m + tried.shape[1]], (len(tried), m + tried.shape[1]))
    return _not_tried(candidates, tried, m)


def effects(tried: Int64, utility: Float64, n_examples: int) -> Float64:
    """Return (q,) how much each example helps beyond the mean, the effects of the rows taken off.

    Least squares of utility = mean + effect of the row + effect of the example, each effect drawn
    towards 0 by one measurement: some rows are helped by any example, and an example must not look
    good for having met them.
    """
    n, k = tried.shape
    is_fine = np.asarray(np.isfinite(utility).all(axis=1))
    value = np.where(is_fine[:, None], utility, 0.0)
    weight = np.repeat(is_fine.astype(np.float64), k)
    example = tried.reshape(-1)
    value = value - (value.sum() / weight.sum() if weight.any() else 0.0)
    of_example = np.zeros(n_examples)
    n_met = np.bincount(example, weights=weight, minlength=n_examples)
    # alternating least squares: each side's effects are the shrunk means of what the other leaves
    for _ in range(N_ROUNDS):
        of_row = (value - of_example[tried]).sum(axis=1) / (k + PRIOR)
        residual = (value - of_row[:, None]).reshape(-1) * weight
        of_example = np.bincount(example, weights=residual, minlength=n_examples) / (n_met + PRIOR)
    return of_example


def _not_tried(candidates: Int64, tried: Int64, m: int) -> Int64:
    """Return the first m candidates of each row that are not among those tried, (n, m)."""
    fresh = np.empty((len(tried), m), dtype=np.int64)
    for first in range(0, len(tried), BLOCK_ROWS):
        block, before = candidates[first : first + BLOCK_ROWS], tried[first : first + BLOCK_ROWS]
        is_known = (block[:, :, None] == before[:, None, :]).any(axis=2)
        # a stable sort by "known" keeps the order of the candidates that are new
        order = np.argsort(is_known, axis=1, kind="stable")[:, :m]
        fresh[first : first + BLOCK_ROWS] = np.take_along_axis(block, order, axis=1)
    return fresh
