"""Does choosing rows beat random rows on Banking77? 10 % of the training rows, equal steps, several seeds.

    python benchmarks/banking77.py --data PATH/banking77          # train.csv and test.csv with text,category

For each method and seed: `select` 10 % of the training set, `train` MiniLM + LoRA for the same number of steps, then
accuracy and macro-F1 on the whole test set. The seed drives the selection (where it is random) and the training. The
difference to random is paired by seed and by test row: its standard error joins that of the mean over test rows of the
per-row difference with the spread between seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

import thresher as th

METHODS = ["random", "stratified", "length", "k-center", "deft-ucs", "facility-location", "herding"]


def run_cell(method: str, seed: int, options: argparse.Namespace) -> dict:
    """Select and train once; return the metrics and the per-row outcomes."""
    pool, test = th.load(options.data / "train.csv"), th.load(options.data / "test.csv")
    began = time.perf_counter()
    subset = th.select(pool, method, budget=options.budget, seed=seed)
    selected = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        adapter = th.train(
            subset,
            eval=test,
            control="none",
            seed=seed,
            settings=th.TrainSettings(max_steps=options.steps),
            out=Path(folder) / "adapter",
        )
        outcomes = pl.read_parquet(Path(folder) / "adapter" / "predictions.parquet").sort("row_id")
    metrics = adapter.metrics["held_out"]
    return {
        "correct": outcomes["correct"].to_numpy().astype(float),
        "accuracy": metrics["accuracy"]["value"],
        "macro_f1": metrics["macro_f1"]["value"],
        "rows": len(subset),
        "classes": subset.dataset.frame["response"].n_unique(),
        "select_seconds": selected - began,
        "train_seconds": time.perf_counter() - selected,
    }


def mean_and_error(values: list[float]) -> dict:
    """Return the mean over seeds and its standard error."""
    return {
        "value": round(float(np.mean(values)), 4),
        "stderr": round(float(np.std(values, ddof=1) / np.sqrt(len(values))), 4),
        "n_seeds": len(values),
    }


def difference(cells: list[dict], control: list[dict]) -> dict:
    """Return the mean accuracy difference to random with a standard error over test rows and over seeds."""
    per_row = np.mean([cell["correct"] - other["correct"] for cell, other in zip(cells, control, strict=True)], axis=0)
    per_seed = [cell["accuracy"] - other["accuracy"] for cell, other in zip(cells, control, strict=True)]
    over_rows = per_row.var(ddof=1) / len(per_row)
    over_seeds = np.var(per_seed, ddof=1) / len(per_seed)
    error = float(np.sqrt(over_rows + over_seeds))
    value = float(per_row.mean())
    verdict = (
        "better than random"
        if value > 2 * error
        else "worse than random"
        if value < -2 * error
        else "no difference seen"
    )
    return {
        "value": round(value, 4),
        "stderr": round(error, 4),
        "n_rows": len(per_row),
        "n_seeds": len(per_seed),
        "verdict": verdict,
    }


def summarise(cells: dict[str, list[dict]], options: argparse.Namespace) -> dict:
    """Return what goes into the results file, for the seeds that all methods have finished."""
    n_seeds = min(map(len, cells.values()))
    done = {method: runs[:n_seeds] for method, runs in cells.items()}
    results = {
        method: {
            "accuracy": mean_and_error([cell["accuracy"] for cell in runs]),
            "macro_f1": mean_and_error([cell["macro_f1"] for cell in runs]),
            "difference_to_random": None if method == "random" else difference(runs, done["random"]),
            "rows": runs[0]["rows"],
            "classes_seen": [cell["classes"] for cell in runs],
            "select_seconds": round(float(np.mean([cell["select_seconds"] for cell in runs])), 2),
            "train_seconds": round(float(np.mean([cell["train_seconds"] for cell in runs])), 1),
        }
        for method, runs in done.items()
    }
    return {
        "command": "python benchmarks/banking77.py " + " ".join(sys.argv[1:]),
        "test_rows": len(cells["random"][0]["correct"]),
        "steps": options.steps,
        "results": results,
        "machine": machine("torch", "transformers", "peft", "faiss-cpu"),
    }


def show(results: dict) -> None:
    """Print the table."""
    print(f"\n{'method':<18} {'accuracy':>16} {'macro-F1':>16} {'difference to random':>24}")
    for method, result in results.items():
        gap = result["difference_to_random"]
        told = "" if gap is None else f"{100 * gap['value']:+.2f} ± {100 * gap['stderr']:.2f}  {gap['verdict']}"
        accuracy, f1 = result["accuracy"], result["macro_f1"]
        print(
            f"{method:<18} {100 * accuracy['value']:8.2f} ± {100 * accuracy['stderr']:.2f} "
            f"{100 * f1['value']:9.2f} ± {100 * f1['stderr']:.2f}   {told}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "banking77.json")
    options = parser.parse_args()
    cells: dict[str, list[dict]] = {method: [] for method in options.methods.split(",")}
    for seed in range(options.seeds):
        for method, runs in cells.items():
            runs.append(cell := run_cell(method, seed, options))
            seconds = cell["train_seconds"]
            print(f"{method:<18} seed {seed}: accuracy {cell['accuracy']:.4f} ({seconds:.0f} s)", flush=True)
        if seed:  # one seed has no spread
            content = summarise(cells, options)
            options.out.write_text(json.dumps(content, indent=2) + "\n")
            show(content["results"])


if __name__ == "__main__":
    main()
