"""Does the 80 % region of `mix` hold the best shares as often as it says?

    python benchmarks/mixture_law.py --designs 200

Simulated designs whose best shares are known. The truth is not of the law's own kind: the loss is
the mean over test topics of E + A (n t.r)^-a, where t is what a row of each source teaches of a
topic, drawn anew for each design together with A and a. Noise is a share of the spread of the loss
over all mixes. For each number of sources, cells and noise: how often the region holds the best
shares, the share of the grid that it covers, and how much loss the chosen shares give away, in
units of that spread, beside equal shares.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from thresher.evaluation.mixture_law import MixtureLaw, find_best_shares, list_shares, spread_shares

RESULT = Path(__file__).parent / "results" / "mixture_law.json"
ROWS = 400


def draw_truth(rng: np.random.Generator, n_sources: int):
    """Return a function from shares and rows to the loss."""
    n_topics = n_sources + 1
    teach = rng.dirichlet(np.full(n_sources, 0.7), n_topics) + 0.02  # (topics, sources)
    height, power = rng.uniform(2, 8, n_topics), rng.uniform(0.15, 0.5, n_topics)

    def loss(shares: np.ndarray, rows: np.ndarray | float) -> np.ndarray:
        learned = np.maximum(shares @ teach.T, 1e-6) * np.asarray(rows)[..., None]
        return (height * learned**-power).mean(axis=-1)

    return loss


def find_optimum(loss, n_sources: int) -> np.ndarray:
    """Return the best shares, from the best point of a grid."""
    grid = list_shares(n_sources)
    start = grid[int(loss(grid, np.full(len(grid), ROWS)).argmin())]
    result = minimize(
        lambda x: float(loss(np.abs(x) / np.abs(x).sum(), ROWS)), start + 1e-3, method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-12, "maxiter": 4000},
    )  # fmt: skip
    return np.abs(result.x) / np.abs(result.x).sum()


def simulate(n_sources: int, n_cells: int, noise: float, n_designs: int) -> dict[str, float]:
    """Return how the region and the chosen shares did."""
    held, area, regret, equal = [], [], [], []
    for number in range(n_designs):
        rng = np.random.default_rng([number, n_sources, n_cells, round(1000 * noise)])
        loss = draw_truth(rng, n_sources)
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
    }


def main() -> None:
    """Simulate, print, and write the result after every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", type=int, default=200)
    parser.add_argument("--per-source", type=int, nargs="+", default=[8, 16], help="cells for each source")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    results = []
    for n_sources in (2, 3, 4):
        for n_cells in (n * n_sources for n in asked.per_source):
            for noise in (0.05, 0.2, 0.5):
                results.append(simulate(n_sources, n_cells, noise, asked.designs))
                print(json.dumps(results[-1]), flush=True)
                asked.out.write_text(json.dumps({"rows": ROWS, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
