"""Does doubt help coverage? Rows chosen in rounds, at once, and by plain facility location.

    OMP_NUM_THREADS=1 python benchmarks/uncertainty_coverage.py --data DIR [--pools 3]

DIR holds banking77, product_attributes and noise. Of each set 1,500 rows are the pool and up to
2,000 others the test rows, drawn anew for each pool. Rows are chosen on static embeddings by
`facility-location`, by `uncertainty-coverage` in rounds and at once, the last two also with rows
whose label is doubtful last, as in the pilot of `auto`, and by `prototypes`. A logistic regression
on the same embeddings learns them. Numbers are points of accuracy and of macro-F1 above as many
random rows (the mean of five draws), with their standard error over pools.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
import real_tasks
from machine import machine

import thresher as th
from thresher.features import compute, make_context
from thresher.features.container import Features
from thresher.features.labels.label_issues import is_label_contradicted
from thresher.numeric.vectors import unit_rows
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.pilot.arms import Arm
from thresher.selectors.pilot.student import grade_student
from thresher.selectors.prototypes import Prototypes
from thresher.selectors.uncertainty_coverage import UncertaintyCoverage

RESULT = Path(__file__).parent / "results" / "uncertainty_coverage.json"
N_POOL, N_TEST, N_DRAWS = 1500, 2000, 5
BUDGETS = (0.05, 0.1, 0.3)
ONE = UncertaintyCoverage(rounds="one")
ARMS = (
    Arm(name="facility-location", selector=FacilityLocation()),
    Arm(name="uncertainty-coverage", selector=UncertaintyCoverage()),
    Arm(name="uncertainty-coverage, doubtful last", selector=UncertaintyCoverage(), skips_doubtful=True),
    Arm(name="uncertainty-coverage rounds=one", selector=ONE),
    Arm(name="uncertainty-coverage rounds=one, doubtful last", selector=ONE, skips_doubtful=True),
    Arm(name="prototypes", selector=Prototypes()),
)


def read_sets(folder):
    """Return texts and labels of each set."""
    pool, test, _ = real_tasks.attributes(folder)
    frames = {
        "banking77": pl.read_csv(folder / "banking77" / "train.csv").select(text="text", label="category"),
        "ae110k": pl.concat([rows.frame.select(text="prompt", label="response") for rows in (pool, test)]),
    }
    for name in ("agnews", "chemprot"):
        lines = pl.read_ndjson(folder / "noise" / f"noise_{name}_weak.jsonl")
        frames[f"{name} weak"] = lines.select("text", label=pl.col("given").cast(pl.String))
    return frames


def read_features(frame, needs):
    """Return features of some rows and their labels, in the order of the row ids."""
    rows = th.load(frame.to_dicts())
    rows = rows.take(rows.frame["row_id"].arg_sort().to_numpy())
    return compute(rows, needs, make_context(encoder="static").resolved()), rows.frame["response"].to_list()


def measure_pool(frame, seed):
    """Return the gains of each arm and budget on one draw of pool and test rows."""
    order = np.random.default_rng(seed).permutation(len(frame))
    features, labels = read_features(frame[order[:N_POOL]], {"embedding", "column:label", "class_probability"})
    test, test_labels = read_features(frame[order[N_POOL : N_POOL + N_TEST]], {"embedding"})
    names = sorted(set(labels))
    is_known = np.isin(test_labels, names)
    x, test_x = unit_rows(features["embedding"]), unit_rows(test["embedding"])[is_known]
    y = np.searchsorted(names, labels)
    test_y = np.searchsorted(names, np.array(test_labels)[is_known])
    n = len(y)
    unit = Features(row_id=features.row_id, arrays={**features.arrays, "embedding": x})
    is_doubtful = is_label_contradicted(features["class_probability"], features["column:label"])

    def grade(rows):
        result = grade_student(x[rows], y[rows], test_x, test_y)
        return np.array([result.accuracy.mean(), result.macro_f1.mean()])

    n_most = round(max(BUDGETS) * n)
    rankings = {arm.name: arm.rank(unit, is_doubtful, n_most, np.random.default_rng(seed)) for arm in ARMS}
    draws = [np.random.default_rng([seed, draw]).permutation(n) for draw in range(N_DRAWS)]
    gains = {}
    for budget in BUDGETS:
        k = round(budget * n)
        control = np.mean([grade(draw[:k]) for draw in draws], axis=0)
        gains |= {(name, budget): 100 * (grade(ranking[:k]) - control) for name, ranking in rankings.items()}
    return gains


def main():
    """Measure, write the result, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pools", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    sets = {}
    for name, frame in read_sets(options.data).items():
        pools = [measure_pool(frame, seed) for seed in range(options.pools)]
        table = {}
        for arm in ARMS:
            for budget in BUDGETS:
                values = np.array([pool[arm.name, budget] for pool in pools])
                error = values.std(axis=0, ddof=1) / len(values) ** 0.5
                table.setdefault(arm.name, {})[f"{budget:.0%}"] = {
                    metric: {"gain": round(float(mean), 2), "se": round(float(se), 2)}
                    for metric, mean, se in zip(("accuracy", "macro_f1"), values.mean(axis=0), error, strict=True)
                }
        sets[name] = table
        print(name)
        for arm, cells in table.items():
            text = "  ".join(
                f"{b}: {c['accuracy']['gain']:+.1f} / {c['macro_f1']['gain']:+.1f}" for b, c in cells.items()
            )
            print(f"  {arm:48}{text}", flush=True)
    result = {
        "command": "python benchmarks/uncertainty_coverage.py --data DIR",
        "pools": options.pools,
        "rows": N_POOL,
        "points_above_random": sets,
        "machine": machine("scikit-learn"),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
