"""Are verdicts of `compare` right: equal methods called different, and true gains found?

    python benchmarks/compare_null.py            # about 15 minutes on one core

Outcomes are simulated, because 200 comparisons of trained models would take weeks: each test row
has a difficulty, each run a level of its own and its own luck with each row (probit). Null: two
methods without a difference, 200 times. Power: a pilot of a few seeds asks `estimate_seeds_needed`
for a gain of two points; as many seeds are run on the same test rows with a planted gain of two
points, 200 times.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from machine import machine

from thresher.evaluation.effect import LEVEL, estimate_effect, estimate_seeds_needed

GAIN = 0.02
SPREAD, LUCK = 1.0, 0.8  # of row difficulties, and of a run on a row
NULLS = [(rows, level) for rows in (300, 1000) for level in (0.0, 0.05, 0.2)]
PILOTS = [(2, 1000, 0.05), (3, 1000, 0.05), (3, 2000, 0.1), (5, 2000, 0.1)]


def runs(rng: np.random.Generator, difficulty: np.ndarray, *, seeds: int, level: float, shift: float = 0.0):
    """Return which rows each run gets right: (seeds, rows)."""
    latent = difficulty + rng.normal(0, level, (seeds, 1)) + rng.normal(0, LUCK, (seeds, len(difficulty)))
    return (latent + shift > 0).astype(float)


def find_shift(gain: float) -> float:
    """Return the latent shift whose mean gain over rows is `gain`, by bisection on a sample."""
    rng = np.random.default_rng(0)
    latent = rng.normal(1, SPREAD, 400_000) + rng.normal(0, LUCK, 400_000)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ((latent + middle > 0).mean() - (latent > 0).mean()) < gain else (low, middle)
    return low


def null(seeds: int, rows: int, level: float, repeats: int) -> dict:
    """Return how often equal methods are called different."""
    rng, called, covered = np.random.default_rng(1), [], []
    for _ in range(repeats):
        difficulty = rng.normal(1, SPREAD, rows)
        sides = [runs(rng, difficulty, seeds=seeds, level=level) for _ in range(2)]
        effect = estimate_effect(*sides, is_higher_better=True)
        called.append(effect.p < LEVEL)
        covered.append(effect.low <= 0 <= effect.high)
    place = {"seeds": seeds, "test_rows": rows, "level_sd": level}
    return place | {"called_different": float(np.mean(called)), "interval_holds_zero": float(np.mean(covered))}


def power(seeds: int, rows: int, level: float, repeats: int) -> dict:
    """Return how often a gain of two points is found with as many seeds as a pilot asks for."""
    rng, shift, asked, is_found = np.random.default_rng(2), find_shift(GAIN), [], []
    for _ in range(repeats):
        difficulty = rng.normal(1, SPREAD, rows)
        pilot = [runs(rng, difficulty, seeds=seeds, level=level) for _ in range(2)]
        needed = estimate_seeds_needed(*pilot, gain=GAIN)
        asked.append(needed)
        if needed is not None:
            ours = runs(rng, difficulty, seeds=needed, level=level, shift=shift)
            effect = estimate_effect(ours, runs(rng, difficulty, seeds=needed, level=level), is_higher_better=True)
            is_found.append(effect.p < LEVEL and effect.value > 0)
    known = [needed for needed in asked if needed is not None]
    return {
        "pilot_seeds": seeds,
        "test_rows": rows,
        "level_sd": level,
        "seeds_asked_for": {"median": float(np.median(known)), "highest": max(known)},
        "said_to_be_out_of_reach": len(asked) - len(known),
        "found": float(np.mean(is_found)),
        "n": len(is_found),
    }


def main() -> None:
    """Simulate, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seeds", default="3,5", help="of the null")
    parser.add_argument("--null-only", action="store_true", help="print the null, and write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compare_null.json")
    options = parser.parse_args()
    result = {
        "command": f"python benchmarks/compare_null.py --repeats {options.repeats}",
        "machine": machine(),
        "repeats": options.repeats,
        "level": LEVEL,
        "planted_gain": GAIN,
        "null": [null(int(seeds), *case, options.repeats) for seeds in options.seeds.split(",") for case in NULLS],
        "power": [] if options.null_only else [power(*case, options.repeats) for case in PILOTS],
    }
    for entry in [*result["null"], *result["power"]]:
        print(entry, flush=True)
    if not options.null_only:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
