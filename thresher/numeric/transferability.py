"""How much features tell of classes, in four numbers that need no training of the model.

All four depend on the geometry of the rows alone: rotating the features, adding columns of zeros or
renaming the classes changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thresher.numeric.arrays import Bool, Float64, Int64

N_GRID = 241  # ratios of precisions that are tried before the best one is refined
REACH = 1e12  # largest and smallest ratio, relative to the features' own scale
N_REFINED = 60  # steps of the golden section: the bracket shrinks by 0.618 each
GOLDEN = (5**0.5 - 1) / 2
N_NEIGHBORS = 5


@dataclass(frozen=True)
class Spectrum:
    """The singular values and left vectors of a matrix of n rows, as far as they are not zero.

    Attributes:
        left: (n, k) orthonormal.
        values: (k,) above zero, falling.
    """

    left: Float64
    values: Float64

    @classmethod
    def decompose(cls, x: Float64) -> Spectrum:
        """Return the spectrum of (n, d) features; directions without any variation are left out."""
        left, values, _ = np.linalg.svd(x[:, np.abs(x).max(axis=0) > 0], full_matrices=False)
        if not len(values):
            return cls(np.zeros((len(x), 0)), np.zeros(0))
        is_real = values > values[0] * max(x.shape) * np.finfo(np.float64).eps
        return cls(left[:, is_real], values[is_real])

    @cached_property
    def coordinates(self) -> Float64:
        """The rows along their own directions: (n, k)."""
        return self.left * self.values


def one_hot(codes: Int64, n_classes: int) -> Float64:
    """Return (n, c) float64: 1 where a row is of a class."""
    table = np.zeros((len(codes), n_classes))
    table[np.arange(len(codes)), codes] = 1.0
    return table


def compute_h_score(x: Float64, codes: Int64) -> float:
    """Return the H-score with the covariance of Ledoit and Wolf (2004).

        H = (1 - a) tr(S_a^-1 S_between),  S_a = (1 - a) S + a m I,  m = tr(S) / k

    S is the covariance of the k directions in which the features vary, S_between that of the class
    means, a the shrinkage that Ledoit and Wolf estimate (Bao et al. 2019; Ibrahim et al. 2021,
    arXiv:2110.06893). It lies between 0 and the number of classes minus one.

    Args:
        x: (n, d) features.
        codes: (n,) classes.
    """
    spectrum = Spectrum.decompose(x - x.mean(axis=0))
    n, k = spectrum.left.shape
    if not k:
        return 0.0
    variance = spectrum.values**2 / n  # (k,) eigenvalues of S
    shrinkage = _estimate_shrinkage(spectrum.coordinates, variance)
    labels = one_hot(codes, int(codes.max()) + 1)
    share = labels.mean(axis=0)
    present = share > 0
    means = (labels.T @ spectrum.coordinates)[present] / (n * share[present, None])  # (c, k)
    between = share[present] @ means**2  # (k,) diagonal of S_between
    shrunk = (1 - shrinkage) * variance + shrinkage * variance.mean()
    return float((1 - shrinkage) * (between / shrunk).sum())


def _estimate_shrinkage(centered: Float64, variance: Float64) -> float:
    """Return the weight of the identity of Ledoit and Wolf, 0..1, in the principal directions."""
    n, k = centered.shape
    distance = float(((variance - variance.mean()) ** 2).sum()) / k
    # mean squared error of S as an estimate of the covariance, per direction
    error = (float(((centered**2).sum(axis=1) ** 2).sum()) / n - float((variance**2).sum())) / (k * n)
    return min(error, distance) / distance if distance > 0 else 1.0


def compute_evidence(x: Float64, codes: Int64) -> float:
    """Return the log evidence of Bayesian regressions from the features to each class, per row.

        mean over classes of  max over a, b of  log N(y; 0, I / b + X X^T / a) / n

    with y = 1 for the rows of a class and 0 for others (LogME, You et al. 2021, arXiv:2102.11005).
    For each ratio b / a the best b has a closed form, so one number is searched for. The published
    codes sum over min(n, d) directions what must be summed over d, and so reward width where rows
    are fewer than dimensions; here all n are summed.

    Args:
        x: (n, d) features.
        codes: (n,) classes.
    """
    spectrum, labels = Spectrum.decompose(x), one_hot(codes, int(codes.max()) + 1)
    along, rest = _split_squares(spectrum, labels[:, labels.any(axis=0)])
    return float(_maximize_evidence(spectrum, along, rest)[0].mean())


def _split_squares(spectrum: Spectrum, y: Float64) -> tuple[Float64, Float64]:
    """Return what of the squares of (n, c) y lies along each direction, (k, c), and the rest."""
    along = (spectrum.left.T @ y) ** 2
    return along, np.maximum((y**2).sum(axis=0) - along.sum(axis=0), 0.0)


def _maximize_evidence(spectrum: Spectrum, along: Float64, rest: Float64) -> tuple[Float64, Float64]:
    """Return the largest log evidence per row, (c,), and its ratio b / a, (c,).

    Args:
        spectrum: of the features.
        along: (k, c) squares of each target along the directions of the features.
        rest: (c,) squares outside of them.
    """
    n, power = len(spectrum.left), spectrum.values**2  # (k,)
    least = np.finfo(np.float64).tiny
    scale = power[0] if len(power) else 1.0
    grid = np.geomspace(1 / REACH, REACH, N_GRID) / scale

    def evaluate(ratio: Float64) -> Float64:
        """Return (c,) for (c,) ratios."""
        weight = 1 / (1 + ratio[:, None] * power)  # (c, k)
        noise = np.maximum(((weight * along.T).sum(axis=1) + rest) / n, least)
        total: Float64 = np.log(weight).sum(axis=1) / n - np.log(2 * np.pi * noise) - 1
        return total / 2

    weight = 1 / (1 + grid[:, None] * power)  # (g, k)
    noise = np.maximum((weight @ along + rest) / n, least)  # (g, c)
    table = (np.log(weight).sum(axis=1)[:, None] / n - np.log(2 * np.pi * noise) - 1) / 2
    best = table.argmax(axis=0)
    low, high = (np.log(grid[np.clip(best + step, 0, N_GRID - 1)]) for step in (-1, 1))
    for _ in range(N_REFINED):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        is_left = evaluate(np.exp(left)) >= evaluate(np.exp(right))
        low, high = np.where(is_left, low, left), np.where(is_left, right, high)
    ratio = np.exp((low + high) / 2)
    refined, coarse = evaluate(ratio), table.max(axis=0)
    return np.maximum(refined, coarse), np.where(refined >= coarse, ratio, grid[best])


def count_neighbor_hits(x: Float64, codes: Int64, *, n_neighbors: int = N_NEIGHBORS) -> Bool:
    """Tell of which rows the nearest other rows name the class: leave-one-out, (n,).

    Nearness is the cosine after centering; each neighbor votes with its similarity plus one, and
    equal votes go to the class of the nearer row.

    Args:
        x: (n, d) features.
        codes: (n,) classes.
        n_neighbors: that vote.
    """
    centered = x - x.mean(axis=0)
    norm = np.linalg.norm(centered, axis=1, keepdims=True)
    unit = np.divide(centered, norm, out=np.zeros_like(centered), where=norm > 0)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    n_near = min(n_neighbors, len(x) - 1)
    near = np.argsort(-similarity, axis=1, kind="stable")[:, :n_near]
    votes = np.zeros((len(x), int(codes.max()) + 1))
    rows = np.arange(len(x))[:, None]
    # a slight bonus for the first: of equal votes, the nearer row's class wins
    weight = np.take_along_axis(similarity, near, axis=1) + 1 + 1e-9 * (n_near - np.arange(n_near))
    np.add.at(votes, (rows, codes[near]), weight)
    return np.asarray(votes.argmax(axis=1) == codes)


def cross_fit_regression(x: Float64, codes: Int64, fold: Int64) -> tuple[Bool, Float64]:
    """Name the class of each row by a ridge regression that has not seen its fold.

    The regression goes from centered features to one column per class; its penalty is the one that
    makes all columns of the learned rows likeliest together, so none is chosen by hand. A class
    that no other fold has is named wrongly.

    Args:
        x: (n, d) features.
        codes: (n,) classes.
        fold: (n,) folds.

    Returns:
        (n,) whether each row is named right, and (n,) its Brier score: the squared distance between
        what the regression says of the classes and the truth, 0 at best.
    """
    is_hit, n_classes = np.zeros(len(x), np.bool_), int(codes.max()) + 1
    distance, truth = np.ones(len(x)), one_hot(codes, n_classes)
    for number in np.unique(fold):
        learned, judged = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not len(learned):
            continue
        mean, share = x[learned].mean(axis=0), truth[learned].mean(axis=0)
        dual = _fit_ridge(x[learned] - mean, truth[learned] - share)
        said = (x[judged] - mean) @ ((x[learned] - mean).T @ dual) + share
        distance[judged] = ((said - truth[judged]) ** 2).sum(axis=1)
        said[:, share == 0] = -np.inf
        is_hit[judged] = said.argmax(axis=1) == codes[judged]
    return is_hit, distance


def _fit_ridge(x: Float64, y: Float64) -> Float64:
    """Return (n, c) so that x.T @ it are the weights, under the penalty of the largest evidence."""
    spectrum = Spectrum.decompose(x)
    if not len(spectrum.values):
        return np.zeros_like(y)
    along, rest = _split_squares(spectrum, y)
    # one noise for all columns: their squares count together
    _, ratio = _maximize_evidence(spectrum, along.mean(axis=1, keepdims=True), rest.mean(keepdims=True))
    # (X X^T + I / ratio)^-1 y in the directions of the features
    return np.asarray(spectrum.left @ ((spectrum.left.T @ y) / (spectrum.values**2 + 1 / ratio)[:, None]))
