"""Rows for a target from a pool of many kinds: transport beside the nearest rows.

    OMP_NUM_THREADS=1 python benchmarks/transport.py

Two questions. `learner`: of a mixed pool (the embedded product listings, 24 kinds), the target is
thirty rows of each of three kinds out of 24, one kind in ten times as many target rows as the pool
has for its size; each method chooses as many rows as half of these kinds' rows, a logistic
regression on the encoder's vectors learns them, and the other test rows of the three kinds judge:
accuracy by redrawn task, differences to `turns` of the same task with their standard error.
`scale`: seconds for 100,000 made-up vectors of 256 components and 200 target rows, and what a
million would take by the passes it makes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine
from sklearn.linear_model import LogisticRegression

import thresher as th
from thresher.features.container import Features
from thresher.features.context import make_context
from thresher.numeric.vectors import unit_rows
from thresher.selectors.registry import create

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "transport.json"
N_TARGET, N_TASKS, N_KINDS = 30, 12, 3
METHODS = {
    "random": ("random", {}),
    "turns": ("target-similarity", {}),
    "sift": ("target-similarity", {"form": "sift"}),
    "gradient": ("transport", {}),
    "spread": ("transport", {"form": "spread"}),
}


def read(name):
    """Return the listings of a file."""
    return [json.loads(line) for line in (ROOT / "data" / "products" / name).open()]


def embed(texts):
    """Return unit vectors of the static encoder."""
    encoder = make_context(encoder="static").resolved().load_encoder()
    out = np.empty((len(texts), 256), np.float32)
    for batch in encoder.encode_batches(pl.Series(texts)):
        out[batch.positions] = batch.values
    return unit_rows(out)


def run_learner():
    """Return the accuracy of each method by task."""
    rows, test = read("train.jsonl"), read("test.jsonl")
    pool = th.load(ROOT / "data" / "products" / "train.jsonl")
    true = {row["text"]: row["true_label"] for row in rows}
    listed = pool.frame["prompt"].to_list()
    labels = np.array([true[text] for text in listed])
    vectors, test_vectors = embed(listed), embed([row["text"] for row in test])
    test_labels = np.array([row["label"] for row in test])
    kinds = [name for name in sorted(set(labels)) if (test_labels == name).sum() > 2 * N_TARGET]
    accuracy = {name: [] for name in METHODS}
    share = {name: [] for name in METHODS}
    for number in range(N_TASKS):
        rng = np.random.default_rng(number)
        task = rng.choice(kinds, N_KINDS, replace=False)
        own = [rng.permutation(np.flatnonzero(test_labels == kind)) for kind in task]
        target = [{"text": test[i]["text"], "label": test[i]["label"]} for each in own for i in each[:N_TARGET]]
        judged = np.concatenate([each[N_TARGET:] for each in own])
        budget = int(np.isin(labels, task).sum() // 2)
        for name, (method, settings) in METHODS.items():
            beside = {} if method == "random" else {"target": target}
            subset = th.select(pool, method, budget=budget, settings=settings, encoder="static", seed=number, **beside)
            model = LogisticRegression(C=10, max_iter=300).fit(vectors[subset.kept], labels[subset.kept])
            accuracy[name].append(float(np.mean(model.predict(test_vectors[judged]) == test_labels[judged])))
            share[name].append(float(np.isin(labels[subset.kept], task).mean()))
    return {
        name: {
            "accuracy": describe(accuracy[name]),
            "difference_to_turns": describe(np.subtract(accuracy[name], accuracy["turns"])),
            "share_of_the_kinds": describe(share[name]),
        }
        for name in METHODS
    }


def describe(values):
    """Return the mean of some values and its standard error."""
    values = np.asarray(values)
    return {
        "mean": round(float(values.mean()), 4),
        "se": round(float(values.std(ddof=1) / len(values) ** 0.5), 4),
        "n": len(values),
    }


def run_scale(n=100_000, m=200, d=256):
    """Return the seconds of both forms on made-up clusters."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((200, d))
    x = (centers[rng.integers(0, 200, n)] + rng.standard_normal((n, d))).astype(np.float32)
    target = (centers[rng.integers(0, 40, m)] + rng.standard_normal((m, d))).astype(np.float32)
    ids = pl.Series([f"{i:08d}" for i in range(n)])
    features = Features(row_id=ids, arrays={"embedding": x}, context={"target_embedding": target})
    result = {"rows": n, "target_rows": m, "components": d}
    for form in ("gradient", "spread"):
        selector = create("transport", {"form": form})
        began = time.monotonic()
        scores = selector.score(features, n_ranked=n, rng=np.random.default_rng(0))
        result[form] = {"seconds": round(time.monotonic() - began, 2), "notes": scores.notes}
    return result


def main():
    """Measure, print and write the result."""
    result = {
        "command": "python benchmarks/transport.py",
        "learner": {"tasks": N_TASKS, "target_rows": N_TARGET * N_KINDS, "methods": run_learner()},
        "scale": [run_scale(), run_scale(n=400_000)],
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
