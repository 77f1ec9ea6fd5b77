"""A law over shares of sources: from small cells to the best shares, with a region that holds them.

The loss of a mix is taken as a sum of three parts. The first is linear in the logarithm of its
rows. The second has a slope for each source, in log(share + offset): with a small offset the first
rows of a source teach more than later ones, so that the best mix has some of several sources; with
a large one it is a straight line, whose best mix is a single source. The third is a smooth function
of all shares about which nothing else is assumed (a Gaussian process with a squared-exponential
kernel). Offset, size of the slopes, length and height are not chosen: every combination of a grid
counts by its marginal likelihood, in which the first part, the slopes and the noise are integrated
out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from thresher.numeric.arrays import Bool, Float64, Int64

OFFSETS = (0.03, 0.3, 3.0)  # of the logarithms of shares
SLOPES = (3.0, 30.0, 300.0, 3e3, 3e4)  # variance of the slopes, to that of the noise
LENGTHS = (0.25, 0.7)  # of the kernel; the corners lie 1.4 apart
HEIGHTS = (0.0, 3.0, 30.0, 300.0, 3e3)  # of the kernel, to the variance of the noise
FLOOR, SCALE = 0.05, 3.0  # of the logarithms that the kernel sees, so that corners lie 1.4 apart
LEAST_WEIGHT = 1e-3  # shapes below are not drawn from
N_DRAWS = 400
MOST_POINTS = 600  # of the grid of shares
FINEST = 40  # steps of the grid between two corners
SURE = 0.8  # probability that the chosen shares keep a bound
# The law's own probability that its region holds the best shares: of truths of other kinds, 0.8 of
# its own held 70 to 87 % (n = 60 for each of nine settings), and 80 % are meant.
REGION = 0.85
JITTER = 1e-9


def list_shares(n_sources: int) -> Float64:
    """Return a grid of shares: (g, m) that sum to 1, in equal steps."""
    steps = next(
        k for k in range(FINEST, 0, -1) if math.comb(k + n_sources - 1, n_sources - 1) <= MOST_POINTS or k == 1
    )

    def fill(left: int, n: int) -> list[tuple[int, ...]]:
        if n == 1:
            return [(left,)]
        return [(first, *rest) for first in range(left + 1) for rest in fill(left - first, n - 1)]

    return np.array(fill(steps, n_sources), dtype=np.float64) / steps


def spread_shares(n_sources: int, n_points: int, limits: Float64 | None = None, *, seed: int = 0) -> Float64:
    """Return shares that fill the space of all mixes: (n, m), equal shares first.

    Each point is the one of 4,000 random mixes that lies farthest from those before it, so that
    corners, edges and the middle all have some (a maximin design).

    Args:
        n_sources: m.
        n_points: n.
        limits: (m,) largest share of each source, or None.
        seed: of the random mixes.
    """
    rng, most = np.random.default_rng(seed), np.ones(n_sources) if limits is None else limits
    mixes = np.concatenate([np.eye(n_sources), rng.dirichlet(np.ones(n_sources), 4000)])
    mixes = np.stack([cap_shares(mix, most) for mix in mixes])
    chosen = [cap_shares(np.full(n_sources, 1 / n_sources), most)]
    distance = np.linalg.norm(mixes - chosen[0], axis=1)
    while len(chosen) < n_points:
        chosen.append(mixes[int(distance.argmax())])
        distance = np.minimum(distance, np.linalg.norm(mixes - chosen[-1], axis=1))
    return np.stack(chosen)


def warp_shares(shares: Float64) -> Float64:
    """Return shares on the scale of the kernel: the first rows of a source count most."""
    return np.asarray(np.log(shares + FLOOR) / SCALE)


def cap_shares(shares: Float64, limits: Float64) -> Float64:
    """Return the shares with none above its limit; what is cut goes to the others in proportion.

    Args:
        shares: (m,) that sum to 1.
        limits: (m,) that sum to 1 or more.
    """
    capped = np.minimum(shares, limits)
    for _ in range(len(shares)):
        missing = 1 - capped.sum()
        room = limits - capped
        if missing <= 1e-12 or room.sum() <= 0:
            break
        weight = np.where(room > 1e-12, np.maximum(shares, 1e-6), 0.0)
        capped = np.minimum(capped + missing * weight / weight.sum(), limits)
    return np.asarray(capped / capped.sum())


@dataclass(frozen=True)
class _Shape:
    """One kind of the parts that depend on shares, with what the cells say under it.

    Attributes:
        offset: of the logarithms.
        slope: variance of the slopes, to that of the noise.
        length: of the kernel.
        height: of the kernel, to the variance of the noise.
        weight: its share of the marginal likelihood.
        inverse: (n, n) inverse covariance of the cells, in units of the noise.
        linear: (q,) coefficients of the part that has a flat prior.
        precision: (q, q) their precision.
        squares: what is left of the values, in units of the inverse covariance.
    """

    offset: float
    slope: float
    length: float
    height: float
    weight: float
    inverse: Float64
    linear: Float64
    precision: Float64
    squares: float


@dataclass(frozen=True)
class MixtureLaw:
    """What is known of the loss of mixes after some were trained.

    Attributes:
        shares: (n, m) of the cells.
        sizes: (n,) rows of the cells.
        values: (n,) losses; lower is better.
    """

    shares: Float64
    sizes: Float64
    values: Float64

    @cached_property
    def _center(self) -> float:
        return float(np.log(self.sizes).mean())

    def _basis(self, sizes: Float64) -> Float64:
        """Return the part with a flat prior: a constant, and the rows' logarithm if it varies."""
        one = np.ones(len(sizes))
        if np.ptp(self.sizes) == 0:
            return one[:, None]
        return np.column_stack([one, np.log(sizes) - self._center])

    @cached_property
    def _shapes(self) -> list[_Shape]:
        h = self._basis(self.sizes)
        n, q = h.shape
        parts = _Covariances(self.shares, self.shares)
        found, logs = [], []
        for offset, slope, length, height in product(OFFSETS, SLOPES, LENGTHS, HEIGHTS):
            if height == 0 and length != LENGTHS[0]:
                continue  # no smooth part has no length
            covariance = np.eye(n) + parts.sum(offset, slope, length, height)
            inverse: Float64 = np.asarray(np.linalg.inv(covariance), np.float64)
            precision = h.T @ inverse @ h + JITTER * np.eye(q)
            linear: Float64 = np.asarray(np.linalg.solve(precision, h.T @ inverse @ self.values), np.float64)
            rest = self.values - h @ linear
            squares = max(float(rest @ inverse @ rest), np.finfo(np.float64).tiny)
            log = -0.5 * (np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(precision)[1])
            logs.append(log - (n - q) / 2 * math.log(squares))
            found.append(_Shape(offset, slope, length, height, 0.0, inverse, linear, precision, squares))
        weight = np.exp(np.array(logs) - max(logs))
        weight /= weight.sum()
        kept = np.flatnonzero(weight >= min(LEAST_WEIGHT, weight.max()))
        return [replace(found[i], weight=float(weight[i] / weight[kept].sum())) for i in kept]

    def sample(self, shares: Float64, sizes: Float64, *, n_draws: int = N_DRAWS, seed: int = 0) -> Float64:
        """Return what the losses of mixes may be: (draws, g), each draw one law.

        Args:
            shares: (g, m).
            sizes: (g,).
            n_draws: laws.
            seed: of the draws.
        """
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n_draws, [shape.weight for shape in self._shapes])
        own, new = self._basis(self.sizes), self._basis(sizes)
        between, among = _Covariances(shares, self.shares), _Covariances(shares, shares)
        dof, draws = len(self.values) - own.shape[1], []
        for shape, count in zip(self._shapes, counts, strict=True):
            if not count:
                continue
            kind = (shape.offset, shape.slope, shape.length, shape.height)
            cross = between.sum(*kind)  # (g, n)
            gain = cross @ shape.inverse
            mean = new @ shape.linear + gain @ (self.values - own @ shape.linear)
            rest = new - gain @ own
            spread = among.sum(*kind) - gain @ cross.T + rest @ np.linalg.solve(shape.precision, rest.T)
            noise = np.sqrt(shape.squares / rng.chisquare(dof, count))  # its standard deviation
            draws.append(mean + noise[:, None] * (rng.standard_normal((count, len(shares))) @ _take_root(spread).T))
        return np.concatenate(draws)


class _Covariances:
    """What two sets of mixes have in common, for every offset and length: each made once."""

    def __init__(self, ours: Float64, theirs: Float64) -> None:
        """Take shares: (a, m) and (b, m)."""
        self._ours, self._theirs = ours, theirs
        self._slopes: dict[float, Float64] = {}
        self._kernels: dict[float, Float64] = {}

    def sum(self, offset: float, slope: float, length: float, height: float) -> Float64:
        """Return the covariance of the parts that depend on shares: (a, b)."""
        if offset not in self._slopes:
            grid = np.log(list_shares(self._ours.shape[1]) + offset)
            mean, spread = grid.mean(axis=0), grid.std(axis=0)
            ours, theirs = ((np.log(each + offset) - mean) / spread for each in (self._ours, self._theirs))
            self._slopes[offset] = ours @ theirs.T
        total = slope * self._slopes[offset]
        if not height:
            return total
        if length not in self._kernels:
            self._kernels[length] = _compute_kernel(warp_shares(self._ours), warp_shares(self._theirs), length)
        return total + height * self._kernels[length]


def _take_root(spread: Float64) -> Float64:
    """Return a root of a covariance, which may be none by what rounding adds: (g, g)."""
    spread, eye = (spread + spread.T) / 2, np.eye(len(spread))
    jitter = JITTER * max(float(np.trace(spread)) / len(spread), np.finfo(np.float64).tiny)
    while True:
        try:
            return np.asarray(np.linalg.cholesky(spread + jitter * eye), np.float64)
        except np.linalg.LinAlgError:
            jitter *= 10


def _compute_kernel(ours: Float64, theirs: Float64, length: float) -> Float64:
    squares = ((ours[:, None, :] - theirs[None, :, :]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squares / (2 * length**2)))


@dataclass(frozen=True)
class BestShares:
    """The shares of the lowest loss, and where they may lie.

    Attributes:
        grid: (g, m) shares that are possible.
        chosen: of the lowest expected loss among those that keep the bound on the cost with a
            probability of 80 %; where none does, the one that comes nearest: (m,).
        region: (g,) bool, the points that hold the best shares with a probability of 80 %.
        density: (g,) how likely each point is the best one, smoothed.
        level: density at the edge of the region.
        width: of the smoothing.
        optima: (draws,) index of the best point of each law.
        costs: (draws,) what `chosen` may cost; None without a cost.
        allowed: most of it.
    """

    grid: Float64
    chosen: Float64
    region: Bool
    density: Float64
    level: float
    width: float
    optima: Int64
    costs: Float64 | None = None
    allowed: float = math.inf

    @property
    def keeps_bound(self) -> bool:
        """Whether the chosen shares keep the bound on the cost with a probability of 80 %."""
        return self.costs is None or bool(np.quantile(self.costs, SURE) <= self.allowed)

    def holds(self, shares: Float64) -> bool:
        """Tell whether the region holds some shares."""
        return bool(_estimate_density(self.grid[self.optima], shares[None, :], self.width)[0] >= self.level)

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """Lowest and highest share of each source within the region."""
        inside = self.grid[self.region]
        return [(float(low), float(high)) for low, high in zip(inside.min(axis=0), inside.max(axis=0), strict=True)]


def find_best_shares(
    law: MixtureLaw,
    size: float,
    *,
    limits: Sequence[float] | Float64 | None = None,
    cost: MixtureLaw | None = None,
    allowed: float = math.inf,
) -> BestShares:
    """Return the best shares at a number of rows.

    Each draw of the law has its own best point; they are the posterior of the best shares.

    Args:
        law: of the loss.
        size: rows.
        limits: (m,) largest share of each source, or None.
        cost: law of a second quantity, as of what is forgotten, or None.
        allowed: most of that quantity. In a draw where no mix keeps to it, the one that comes
            nearest is the best.
    """
    grid = list_shares(law.shares.shape[1])
    if limits is not None:
        grid = np.unique(np.round([cap_shares(each, np.asarray(limits, np.float64)) for each in grid], 12), axis=0)
    sizes = np.full(len(grid), size)
    losses = law.sample(grid, sizes)
    expected, costs = losses.mean(axis=0), None
    if cost is not None:
        costs = cost.sample(grid, sizes, seed=1)
        # a mean within the bound would break it every second time
        expected = _forbid(expected, np.quantile(costs, SURE, axis=0), allowed)
        losses = _forbid(losses, costs, allowed)
    optima = losses.argmin(axis=1)
    spread = grid[optima].std(axis=0).max()
    step = np.sort(np.unique(np.round(grid[:, 0], 12)))
    least = float(np.diff(step).min()) if len(step) > 1 else 0.02
    width = max(0.75 * least, spread * len(optima) ** (-1 / (grid.shape[1] + 3)))
    # each optimum is judged by the others: its own weight would make the region too small
    at_optima = _estimate_density(grid[optima], grid[optima], width) - 1 / len(optima)
    level = float(np.quantile(at_optima, 1 - REGION))
    density = _estimate_density(grid[optima], grid, width)
    best = int(expected.argmin())
    own = None if costs is None else costs[:, best]
    return BestShares(grid, grid[best], density >= level, density, level, width, optima, own, allowed)


def _forbid(losses: Float64, costs: Float64, allowed: float) -> Float64:
    """Return losses in which mixes that cost too much are worse than all others, by their cost."""
    worst = losses.max(axis=-1, keepdims=True)
    return np.asarray(np.where(costs <= allowed, losses, worst + 1 + costs - allowed))


def _estimate_density(optima: Float64, at: Float64, width: float) -> Float64:
    """Return how many optima lie near each point, by a Gaussian kernel: (g,)."""
    points, counts = np.unique(optima, axis=0, return_counts=True)
    return np.asarray(_compute_kernel(at, points, width) @ (counts / counts.sum()))
