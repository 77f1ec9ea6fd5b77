"""Does the adaptive curve find what the full grid finds, and at which share of its cost?

    python benchmarks/curves.py --data PATH   # folder with banking77, product_attributes, gsm8k

For each data set, 1,280 rows of the training set are the pool and up to 600 rows of the test set
judge; sizes double from 20 to 1,280; five seeds; random rows. First the full grid, then the
adaptive mode, which finds its cells among those of the grid (so it costs no time here; its cost is
counted in rows that pass through the model). Last, coverage on real curves: the law is fitted
without the largest sizes, and its 80 % interval is asked for the values there; of the classifiers
both for accuracy and for loss. The values of one curve err together, so few curves say little.

Tasks: Banking77 intents (MiniLM); which attribute a value of a product title is, made from AE-110k
(MiniLM); GSM8K answers, loss per token of the toy `tiny`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

import thresher as th
from thresher.evaluation.curves.curve_fit import fit_curve

N_POOL, N_TEST, N_SEEDS = 1280, 600, 5
MIN_ROWS_OF_ATTRIBUTE = 40


def banking77(folder: Path) -> tuple[th.Dataset, th.Dataset, dict]:
    """Return pool, test and options of Banking77."""
    train, test = (pl.read_csv(folder / "banking77" / f"{part}.csv") for part in ("train", "test"))
    return th.load(train.sample(N_POOL, seed=0)), th.load(test.sample(N_TEST, seed=0)), {"encoder": "static"}


def attributes(folder: Path) -> tuple[th.Dataset, th.Dataset, dict]:
    """Return rows that ask which attribute a value in a product title is."""
    parts = []
    for part in ("train", "test"):
        path = folder / "product_attributes/data/processed_datasets/ae-110k" / f"{part}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        parts.append(
            pl.DataFrame(
                [
                    {"text": f"{value} in: {row['input']}", "label": name}
                    for row in rows
                    for name, values in row["target_scores"].items()
                    for value in values
                    if value != "n/a"
                ]
            ).unique(maintain_order=True)
        )
    train, test = parts
    counts = train["label"].value_counts().filter(pl.col("count") >= MIN_ROWS_OF_ATTRIBUTE)["label"]
    train, test = (part.filter(pl.col("label").is_in(counts.implode())) for part in (train, test))
    return th.load(train.sample(N_POOL, seed=0)), th.load(test.sample(N_TEST, seed=0)), {"encoder": "static"}


def gsm8k(folder: Path) -> tuple[th.Dataset, th.Dataset, dict]:
    """Return pool and test of GSM8K, for the toy language model `tiny`."""
    train, test = (pl.read_ndjson(folder / "gsm8k" / f"{part}.jsonl") for part in ("train", "test"))
    columns = {"prompt": "question", "response": "answer"}
    pool, held_out = (th.load(part.sample(n, seed=0), columns=columns) for part, n in ((train, N_POOL), (test, 200)))
    settings = th.TrainSettings(epochs=1, eval_generations=0, learning_rate=1e-3, max_length=512)
    return pool, held_out, {"encoder": "static", "model": "tiny", "settings": settings}


TASKS = {"banking77": banking77, "ae110k-attributes": attributes, "gsm8k-sft": gsm8k}


def describe_curve(curve: th.LearningCurve) -> dict:
    """Return what a curve says of random rows."""
    entry = curve.content["methods"]["random"]
    return {
        "enough": entry["enough"],
        "laws": entry["laws"],
        "points": entry["points"],
        "cells": len(curve.cells),
        "cost_share": curve.content["cost_share"],
        "stopped": curve.content["stopped"],
    }


def group_values(curve: th.LearningCurve) -> dict[int, list[float]]:
    """Return the values of random rows by size."""
    done = curve.cells.filter((pl.col("method") == "random") & (pl.col("status") == "done"))
    parts = done.sort("n_rows", "seed").group_by("n_rows", maintain_order=True)
    return {size: part["value"].to_list() for (size,), part in parts}


def hidden(curve: th.LearningCurve) -> list[dict]:
    """Fit without the largest sizes and predict the mean of the runs there, an estimate itself."""
    runs, predictions = group_values(curve), []
    sizes, higher = sorted(runs), curve.content["is_higher_better"]
    for n_hidden in (1, 2, 3):
        seen = sizes[:-n_hidden]
        fit = fit_curve(seen, [runs[size] for size in seen], is_higher_better=higher)
        for size in sizes[-n_hidden:]:
            errors = fit.sampled_errors([size])[:, 0]
            errors = errors + np.random.default_rng(0).normal(0, fit.seed_sd / np.sqrt(len(runs[size])), len(errors))
            low, median, high = np.quantile(1 - errors if higher else errors, [0.1, 0.5, 0.9])
            value = float(np.mean(runs[size]))
            predictions.append(
                {
                    "metric": curve.content["metric"],
                    "hidden_sizes": n_hidden,
                    "size": size,
                    "value": value,
                    "median": float(median),
                    "low": float(low),
                    "high": float(high),
                    "is_covered": bool(low <= value <= high),
                }
            )
    return predictions


def agreement(grid: th.LearningCurve, adaptive: th.LearningCurve) -> dict:
    """Say whether the full grid's answer (its median) is in both intervals."""
    rows, result = grid.enough["random"].rows, {}
    for name, curve in (("grid", grid), ("adaptive", adaptive)):
        answer = curve.enough["random"]
        result[name] = {"verdict": answer.verdict, "low": answer.low, "high": answer.high}
        result[f"is_in_{name}"] = answer.low <= rows <= answer.high
    return result


def main() -> None:
    """Run the tasks, print, and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "curves.json")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.is_file() else {"tasks": {}}
    result |= {"command": "python benchmarks/curves.py --data PATH", "machine": machine()}
    for name in options.tasks.split(","):
        pool, test, more = TASKS[name](options.data)
        shared = {"eval": test, "methods": ["random"], "seeds": N_SEEDS, "overlap": "drop", "workers": options.workers}
        began = time.perf_counter()
        grid = th.learning_curve(pool, grid=True, **shared, **more, on_progress=show)
        seconds = time.perf_counter() - began
        adaptive = th.learning_curve(pool, **shared, **more)
        entry = {"grid": describe_curve(grid), "adaptive": describe_curve(adaptive), "grid_seconds": round(seconds, 1)}
        entry |= {"agreement": agreement(grid, adaptive), "hidden": hidden(grid)}
        if entry["hidden"][0]["metric"] != "loss":  # the same cells measured by another metric
            entry["hidden"] += hidden(th.learning_curve(pool, grid=True, metric="loss", **shared, **more))
        result["tasks"][name] = entry
        print(name, entry["agreement"], "cost share", entry["adaptive"]["cost_share"], flush=True)
        checked = [prediction["is_covered"] for task in result["tasks"].values() for prediction in task["hidden"]]
        result["hidden_coverage"] = {"covered": sum(checked), "of": len(checked), "nominal": 0.8}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def show(event) -> None:
    """Print the notes."""
    if event.note:
        print(event.note, flush=True)


if __name__ == "__main__":
    main()
