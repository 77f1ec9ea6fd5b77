"""Does `auto` choose random rows where no method is better? Races in which every arm is random.

    python benchmarks/auto_null.py               # about 3 minutes on one core
    python benchmarks/auto_null.py --races 40    # prints, and writes nothing

Every arm of a race takes random rows, each its own (one under the name of the favorite), so
whatever other arm is chosen was lucky. The pool is planted anew for each race, as in the tests:
three classes of uneven size around random centers, 300 rows, 10 % chosen. Bar: another arm than
random in at most 5 % of 400 races.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

from thresher.features.container import Features
from thresher.numeric.vectors import unit_rows
from thresher.selectors.pilot.arms import CONTROL, Arm
from thresher.selectors.pilot.race import FAVORITE, Race
from thresher.selectors.uniform import Uniform

N_ARMS, RACES = 8, 400
N_PLANTED, N_CLASSES, N_DIMENSIONS, NOISE, SHARE = 300, 3, 10, 1.5, 0.1
RESULT = Path(__file__).parent / "results/auto_null.json"


def build_features(x: np.ndarray, label: np.ndarray) -> Features:
    """Return the features of rows, as a race reads them."""
    ids = pl.Series([f"{i:06d}" for i in range(len(x))])
    return Features(row_id=ids, arrays={"embedding": unit_rows(x.astype(np.float32)), "column:label": label})


def plant(seed: int) -> Features:
    """Return rows of a few classes around random centers."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(N_CLASSES, N_DIMENSIONS))
    share = 1 / np.arange(1, N_CLASSES + 1)
    label = rng.choice(N_CLASSES, N_PLANTED, p=share / share.sum())
    label[:N_CLASSES] = np.arange(N_CLASSES)
    return build_features(centers[label] + NOISE * rng.normal(size=(N_PLANTED, N_DIMENSIONS)), label)


def run_races(races: int) -> dict:
    """Return how often another arm than random is chosen."""
    names = [CONTROL, FAVORITE, *(f"random {i}" for i in range(2, N_ARMS))]
    arms = [Arm(name=name, selector=Uniform()) for name in names]
    began, chosen, effects = time.process_time(), 0, []
    for seed in range(races):
        features = plant(seed)
        race = Race(features, arms, share=SHARE, metric="accuracy", salt=seed, max_seconds=None)
        pilot = race.run(np.zeros(features.n_rows, np.bool_))
        chosen += pilot.chosen.name != CONTROL
        if pilot.effect is not None:
            effects.append(pilot.effect.value)
    return {
        "pool": "planted",
        "share": SHARE,
        "arms": N_ARMS,
        "races": races,
        "raced": len(effects),
        "chose_another": chosen,
        "share_of_races": chosen / races,
        "mean_effect": float(np.mean(effects)),
        "cpu_seconds_per_race": round((time.process_time() - began) / races, 3),
    }


def main() -> None:
    """Race, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=RACES)
    options = parser.parse_args()
    entry = run_races(options.races)
    print(entry)
    if options.races == RACES:
        RESULT.write_text(json.dumps({"machine": machine("scikit-learn"), "entries": [entry]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
