"""Thirty rows of a task and a mixed pool: how many of the chosen rows are of the task?

    OMP_NUM_THREADS=1 python benchmarks/mixed_pool.py

The pool is the embedded product listings of 24 categories, some of them near-copies of others. Each
of six categories in turn is the task: thirty of its test rows are the target, and as many rows as a
tenth of the category's are chosen. `share` is that of rows whose true category is the task,
`copies` that of chosen rows that repeat another chosen one (exact, near or reworded copies, which
the data names), both averaged over tasks with their standard error; seconds are of the choice.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from machine import machine

import thresher as th

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "mixed_pool.json"
N_TARGET, N_TASKS = 30, 6
METHODS = {
    "random": ("random", {}),
    "bm25": ("target-similarity", {"kernel": "bm25"}),
    "turns": ("target-similarity", {}),
    "sift": ("target-similarity", {"form": "sift"}),
}


def read(name):
    """Return the listings of a file."""
    return [json.loads(line) for line in (ROOT / "data" / "products" / name).open()]


def main():
    """Measure, print and write the result."""
    rows, test = read("train.jsonl"), read("test.jsonl")
    pool = th.load(ROOT / "data" / "products" / "train.jsonl")
    by_text = {row["text"]: row for row in rows}
    listed = [by_text[text] for text in pool.frame["prompt"].to_list()]
    names = [row["true_label"] for row in listed]
    tasks = sorted(set(names), key=lambda name: (-names.count(name), name))[:: max(1, len(set(names)) // N_TASKS)]
    found = {name: {"share": [], "copies": [], "seconds": []} for name in METHODS}
    for number, task in enumerate(tasks[:N_TASKS]):
        own = [{"text": row["text"], "label": row["label"]} for row in test if row["label"] == task]
        chosen = np.random.default_rng(number).permutation(len(own))[:N_TARGET]
        target = [own[i] for i in chosen]
        budget = max(10, names.count(task) // 10)
        for name, (method, settings) in METHODS.items():
            began = time.monotonic()
            beside = {} if method == "random" else {"target": target}
            subset = th.select(pool, method, budget=budget, settings=settings, encoder="static", **beside)
            found[name]["seconds"].append(time.monotonic() - began)
            found[name]["share"].append(np.mean([names[i] == task for i in subset.kept]))
            origins = [listed[i].get("planted_of") or listed[i]["listing_id"] for i in subset.kept]
            found[name]["copies"].append(1 - len(set(origins)) / len(origins))
    result = {
        "command": "python benchmarks/mixed_pool.py",
        "tasks": tasks[:N_TASKS],
        "rows": len(pool),
        "methods": {
            name: {
                key: {"mean": round(float(np.mean(v)), 3), "se": round(float(np.std(v, ddof=1) / len(v) ** 0.5), 3)}
                for key, v in values.items()
            }
            for name, values in found.items()
        },
        "machine": machine(),
    }
    print(json.dumps(result["methods"], indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
