"""Does the 80 % region of `mix` hold the best shares as often as it says?

    python benchmarks/mixture_law.py --designs 60

Simulated designs whose best shares are known, of six kinds in turn, drawn anew for each design:
`topics`, the mean over test topics of A (n t.r)^-a, where t is what a row of each source teaches of
a topic; `alone`, where each source teaches by itself, -b log(r + c); `bowl`, a quadratic function
with its lowest point at random shares; `exponential`, a sum of exponentials of linear functions
(the data mixing laws of Ye et al. 2024, arXiv:2403.16952); `straight`, nearly linear, so that one
source is best; and `harmful`, as `topics` with one source that harms. Noise is a share of the
spread of the loss over all mixes. For each number of sources, cells and noise: how often the region
holds the best shares, the share of the grid that it covers, and how much loss the chosen shares
give away, in units of that spread, beside equal shares. The law was chosen on ten
designs of each kind at one setting, and the level of its region on ten of each kind at every
setting, both with other seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy

from thresher.evaluation.mixture_law import MixtureLaw, find_best_shares, list_shares, spread_shares

RESULT = Path(__file__).parent / "results" / "mixture_law.json"
ROWS = 400


Loss = Callable[[np.ndarray, "np.ndarray | float"], np.ndarray]


def teach_topics(rng: np.random.Generator, m: int) -> Loss:
    """Return the mean of power laws of what is learned of each topic."""
    teach = rng.dirichlet(np.full(m, 0.7), m + 1) + 0.02  # (topics, sources)
    height, power = rng.uniform(2, 8, m + 1), rng.uniform(0.15, 0.5, m + 1)

    def loss(shares: np.ndarray, rows: np.ndarray | float) -> np.ndarray:
        learned = np.maximum(shares @ teach.T, 1e-6) * np.asarray(rows)[..., None]
        return (height * learned**-power).mean(axis=-1)

    return loss


def teach_alone(rng: np.random.Generator, m: int) -> Loss:
    """Return a sum of what each source teaches, less with each further row."""
    b, c = rng.dirichlet(np.ones(m)), rng.uniform(0.005, 0.1, m)
    return lambda shares, rows: -(b * np.log(shares + c)).sum(axis=-1) - 0.1 * np.log(rows)


def make_bowl(rng: np.random.Generator, m: int) -> Loss:
    """Return a quadratic function with its lowest point at random shares."""
    center, root = rng.dirichlet(np.ones(m)), rng.standard_normal((m, m))
    curve = root @ root.T / m + 0.1 * np.eye(m)

    def loss(shares: np.ndarray, rows: np.ndarray | float) -> np.ndarray:
        return np.einsum("...i,ij,...j->...", shares - center, curve, shares - center) - 0.05 * np.log(rows)

    return loss


def mix_exponentials(rng: np.random.Generator, m: int) -> Loss:
    """Return a weighted sum over domains of exponentials of linear functions of the shares."""
    t = rng.uniform(-3, 0.5, (m, m))
    np.fill_diagonal(t, rng.uniform(-5, -2, m))
    weight = rng.dirichlet(np.ones(m))
    return lambda shares, rows: (weight * np.exp(shares @ t.T)).sum(axis=-1) - 0.05 * np.log(rows)


def make_straight(rng: np.random.Generator, m: int) -> Loss:
    """Return a nearly linear function."""
    slope, curve = rng.standard_normal(m), rng.uniform(0, 0.5, m)
    return lambda shares, rows: shares @ slope + (curve * shares**2).sum(axis=-1) - 0.05 * np.log(rows)


def make_harmful(rng: np.random.Generator, m: int) -> Loss:
    """Return what topics teach, with one source of which every row harms."""
    teach, bad, harm = teach_topics(rng, m), int(rng.integers(m)), rng.uniform(0.2, 1)
    return lambda shares, rows: teach(shares, rows) + harm * shares[..., bad] ** 0.5


KINDS: dict[str, Callable[[np.random.Generator, int], Loss]] = {
    "topics": teach_topics,
    "alone": teach_alone,
    "bowl": make_bowl,
    "exponential": mix_exponentials,
    "straight": make_straight,
    "harmful": make_harmful,
}


def find_optimum(loss, n_sources: int) -> np.ndarray:
    """Return the best shares, from the best point of a grid."""
    grid = list_shares(n_sources)
    start = grid[int(loss(grid, np.full(len(grid), ROWS)).argmin())]
    result = scipy.optimize.minimize(
        lambda x: float(loss(np.abs(x) / np.abs(x).sum(), ROWS)), start + 1e-3, method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-12, "maxiter": 4000},
    )  # fmt: skip
    return np.abs(result.x) / np.abs(result.x).sum()


def simulate(n_sources: int, n_cells: int, noise: float, n_designs: int, seed: int = 1) -> dict[str, float]:
    """Return how the region and the chosen shares did."""
    held, area, regret, equal = [], [], [], []
    for number in range(n_designs):
        rng = np.random.default_rng([seed, number, n_sources, n_cells, round(1000 * noise)])
        loss = list(KINDS.values())[number % len(KINDS)](rng, n_sources)
        best, grid = find_optimum(loss, n_sources), list_shares(n_sources)
        at_grid = loss(grid, np.full(len(grid), ROWS))
        spread = float(at_grid.std())
        shares = spread_shares(n_sources, n_cells, seed=number)
        sizes = np.where(np.arange(n_cells) % 3 == 2, ROWS / 2, ROWS)
        values = loss(shares, sizes) + noise * spread * rng.standard_normal(n_cells)
        found = find_best_shares(MixtureLaw(shares, sizes, values), ROWS)
        least = float(loss(best, ROWS))
        held.append(found.holds(best))
        area.append(float(found.region.mean()))
        regret.append((float(loss(found.chosen, ROWS)) - least) / spread)
        equal.append((float(loss(np.full(n_sources, 1 / n_sources), ROWS)) - least) / spread)
    rate = float(np.mean(held))
    return {
        "sources": n_sources,
        "cells": n_cells,
        "noise": noise,
        "designs": n_designs,
        "region_holds_the_best": rate,
        "stderr": float(np.sqrt(rate * (1 - rate) / n_designs)),
        "share_of_the_grid": float(np.mean(area)),
        "loss_given_away": float(np.mean(regret)),
        "loss_given_away_by_equal_shares": float(np.mean(equal)),
        "held_by_kind": {name: float(np.mean(held[start :: len(KINDS)])) for start, name in enumerate(KINDS)},
    }


def main() -> None:
    """Simulate what is not in the result file yet, and print and write every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", type=int, default=60)
    parser.add_argument("--per-source", type=int, nargs="+", default=[8], help="cells for each source")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    results = json.loads(asked.out.read_text())["results"] if asked.out.is_file() else []
    for n_sources in (2, 3, 4):
        for n_cells in (n * n_sources for n in asked.per_source):
            for noise in (0.05, 0.2, 0.5):
                done = [(each["sources"], each["cells"], each["noise"], each["designs"]) for each in results]
                if (n_sources, n_cells, noise, asked.designs) in done:
                    continue
                results.append(simulate(n_sources, n_cells, noise, asked.designs, asked.seed))
                print(json.dumps(results[-1]), flush=True)
                asked.out.write_text(json.dumps({"rows": ROWS, "results": results}, indent=1) + "\n")
    print("mean", np.mean([each["region_holds_the_best"] for each in results]))
    for kind in KINDS:
        print(kind, round(float(np.mean([each["held_by_kind"][kind] for each in results])), 3))


if __name__ == "__main__":
    main()
