"""Does the adaptive curve find what the full grid finds, and at which share of its cost? On three real data sets.

    python benchmarks/curves.py --data PATH          # the folder with banking77, product_attributes and gsm8k

For each data set, 1,280 rows of the training set are the pool and up to 600 rows of the test set judge; sizes double
from 20 to 1,280; five seeds; random rows. First the full grid, then the adaptive mode, which finds its cells among
those of the grid (so it costs no time here; its cost is counted in rows that pass through the model). Last, coverage on
real curves: the law is fitted without the largest sizes, and its 80 % interval is asked for the values there.

Tasks: Banking77 intents (MiniLM); which attribute a value of a product title is, made from AE-110k (MiniLM); GSM8K
answers, loss per token of the embedded causal language model.
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
from thresher.evaluation.saturation import fit_curve

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
    """Return pool and test of GSM8K, for the embedded causal language model."""
    train, test = (pl.read_ndjson(folder / "gsm8k" / f"{part}.jsonl") for part in ("train", "test"))
    columns = {"prompt": "question", "response": "answer"}
    pool, held_out = (th.load(part.sample(n, seed=0), columns=columns) for part, n in ((train, N_POOL), (test, 200)))
    settings = th.TrainSettings(epochs=1, eval_generations=0, learning_rate=1e-3, max_length=512)
    return pool, held_out, {"encoder": "static", "settings": settings}


TASKS = {"banking77": banking77, "ae110k-attributes": attributes, "gsm8k-sft": gsm8k}


def told(curve: th.LearningCurve) -> dict:
    """Return what a curve says of random rows."""
    entry = curve.content["methods"]["random"]
    return {
        "saturation": entry["saturation"],
        "delta": curve.content["delta"],
        "laws": entry["laws"],
        "points": entry["points"],
        "cells": len(curve.cells),
        "cost_share": curve.content["cost_share"],
        "stopped": curve.content["stopped"],
    }


def hidden(curve: th.LearningCurve) -> list[dict]:
    """Fit without the largest sizes and ask for the value there."""
    done = curve.cells.filter((pl.col("method") == "random") & (pl.col("status") == "done"))
    runs = {
        size: part["value"].to_list()
        for (size,), part in done.sort("n_rows", "seed").group_by("n_rows", maintain_order=True)
    }
    sizes, found = sorted(runs), []
    for n_hidden in (1, 2, 3):
        seen = sizes[:-n_hidden]
        fit = fit_curve(seen, [runs[size] for size in seen], is_higher_better=curve.content["is_higher_better"])
        for size in sizes[-n_hidden:]:
            foretold, value = fit.metric(size, same_test=True), float(np.mean(runs[size]))
            found.append(
                {
                    "hidden_sizes": n_hidden,
                    "size": size,
                    "value": value,
                    "low": foretold.low,
                    "high": foretold.high,
                    "is_covered": foretold.low <= value <= foretold.high,
                }
            )
    return found


def agreement(grid: dict, adaptive: dict) -> dict:
    """Say whether the grid's point lies in the adaptive interval."""
    point, interval = grid["saturation"], adaptive["saturation"]
    if point["rows"] is None:
        return {
            "grid": "not identifiable",
            "adaptive": interval["status"],
            "agree": interval["status"] == point["status"],
        }
    high = float("inf") if interval["high"] is None else interval["high"]
    return {
        "grid": point["rows"],
        "low": interval["low"],
        "high": interval["high"],
        "agree": interval["low"] <= point["rows"] <= high,
    }


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
        entry = {"grid": told(grid), "adaptive": told(adaptive), "grid_seconds": round(seconds, 1)}
        entry |= {"agreement": agreement(entry["grid"], entry["adaptive"]), "hidden": hidden(grid)}
        result["tasks"][name] = entry
        print(name, entry["agreement"], "cost share", entry["adaptive"]["cost_share"], flush=True)
        checked = [found["is_covered"] for task in result["tasks"].values() for found in task["hidden"]]
        result["hidden_coverage"] = {"covered": sum(checked), "of": len(checked), "nominal": 0.8}
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def show(event) -> None:
    """Print the notes."""
    if event.note:
        print(event.note, flush=True)


if __name__ == "__main__":
    main()
