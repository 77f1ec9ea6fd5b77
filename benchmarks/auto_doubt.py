"""Does `auto` flatter methods that doubt labels, because held-out rows help to doubt them?

    python benchmarks/auto_doubt.py --data PATH    # with noise; about 5 minutes on one core

`auto` computes `class_probability` once, of the whole pool; so a candidate's label is doubted by
classifiers that have learned from held-out rows, too. Here the arms that use the doubt choose once
with it, and once with the doubt that candidates alone give, in the same splits. `flattery` is the
difference of their accuracy on the held-out rows, in points, with its 95 % interval over splits.
Pools of 2,000 rows of AG News and ChemProt with the labels of rules, and of the product listings;
10 % chosen; the held-out labels are the given ones, as in a race.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import auto
import numpy as np
from machine import machine

from thresher.dataset import Dataset
from thresher.features import FeatureContext, compute
from thresher.features.labels.label_issues import is_label_contradicted
from thresher.models.settings import ModelSettings
from thresher.numeric.vectors import unit_rows
from thresher.selectors.pilot.arms import list_labeled_arms, take_rows
from thresher.selectors.pilot.splits import draw_split
from thresher.selectors.pilot.statistics import estimate_difference
from thresher.selectors.pilot.student import grade_student

NAMES, POOLS, SPLITS, SHARE = ("products", "agnews", "chemprot"), 4, 3, 0.1
ARMS = ("random without doubtful labels", "stratified balance=sqrt", "prototypes", "prototypes balance=proportional")
RESULT = Path(__file__).parent / "results/auto_doubt.json"


def read_pool(pool: Dataset) -> tuple:
    """Return the features of a pool, its rows in the same order, and which labels are doubtful."""
    order = pool.frame["row_id"].arg_sort().to_numpy()
    rows = pool.take(order)
    context = FeatureContext(models=ModelSettings(encoder="static")).resolved()
    features = compute(rows, {"embedding", "column:label", "class_probability"}, context)
    features = replace(features, arrays={**features.arrays, "embedding": unit_rows(features["embedding"])})
    return features, rows, is_label_contradicted(features["class_probability"], features["column:label"])


def measure(name: str, folder: Path) -> list[dict]:
    """Return the flattery of each arm in one set."""
    rows, _ = auto.load_task(name, folder)
    arms = [arm for arm in list_labeled_arms(auto.N_POOL) if arm.name in ARMS]
    judged: list[np.ndarray] = []
    gaps: dict[str, list[np.ndarray]] = {arm.name: [] for arm in arms}
    for seed in range(POOLS):
        features, pool, is_doubtful = read_pool(auto.draw_pool(rows, seed))
        unit, label = features["embedding"], features["column:label"]
        for number in range(SPLITS):
            split = draw_split(unit, label, np.random.default_rng([seed, number]))
            inside, _, alone = read_pool(pool.take(split.candidates))
            n_chosen = round(SHARE * len(split.candidates))
            held_out = split.held_out
            judged.append(held_out + seed * auto.N_POOL)  # other pools have other rows
            for arm in arms:
                hits = []
                for which, doubt in (
                    (take_rows(features, split.candidates), is_doubtful[split.candidates]),
                    (inside, alone),
                ):
                    rng = np.random.default_rng([seed, number, 1])
                    chosen = split.candidates[arm.rank(which, doubt, n_chosen, rng)]
                    hits.append(grade_student(unit[chosen], label[chosen], unit[held_out], label[held_out]).accuracy)
                gaps[arm.name].append(hits[0] - hits[1])
    entries = []
    for arm in arms:
        effect = estimate_difference(judged, gaps[arm.name], 0.05)
        entry = {"set": name, "arm": arm.name, "splits": len(judged), "flattery": effect.value}
        entries.append(entry | {"low": effect.low, "high": effect.high})
        print(entries[-1], flush=True)
    return entries


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    entries = [entry for name in NAMES for entry in measure(name, options.data)]
    RESULT.write_text(json.dumps({"machine": machine("scikit-learn"), "entries": entries}, indent=1) + "\n")


if __name__ == "__main__":
    main()
