"""What does `train --skip revisit|first` save, and what does it cost in accuracy?

    python benchmarks/skip.py --data DIR --work FOLDER    # resumable; writes results/skip.json

MiniLM with LoRA at its defaults, on 480 rows of Banking77 and of the embedded product listings, six
epochs of 16 rows a step, two seeds; 500 test rows. Each way is compared with plain training, paired
by test row and seed. Saved are the passes of rows that no gradient was computed for; CPU seconds
are of the training alone, on a machine with other work, so their ratio matters.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
from label_ask import load_task
from machine import machine

import thresher as th
from thresher.evaluation.effect import estimate_effect
from thresher.trainer.settings import TrainSettings

SETS, WAYS, SEEDS = ("products", "banking77"), ("none", "revisit", "first"), (0, 1)
N_ROWS, N_TEST, EPOCHS = 480, 500, 6.0
RESULT = Path(__file__).parent / "results/skip.json"


def run_cell(rows: pl.DataFrame, test: pl.DataFrame, way: str, seed: int, cell: Path) -> dict:
    """Train once, and return which test rows are right, what was saved and what it took."""
    if cell.exists():
        return json.loads(cell.read_text())
    out, began = cell.with_suffix(".adapter"), time.process_time()
    settings = TrainSettings(epochs=EPOCHS, skip=way)
    th.train(th.load(rows), eval=th.load(test), control="none", seed=seed, settings=settings, base="none", out=out)
    outcomes = pl.read_parquet(out / "predictions.parquet").sort("row_id")
    metrics = json.loads((out / "metrics.json").read_text())
    entry = {
        "hits": "".join(str(int(value)) for value in outcomes["correct"]),
        "skipped": metrics.get("skipping"),
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    cell.write_text(json.dumps(entry))
    return entry


def summarize(cells: dict[tuple[str, int], dict]) -> dict:
    """Return accuracy, the paired difference to plain training, and what was saved."""
    hits = {way: np.array([[int(c) for c in cells[way, seed]["hits"]] for seed in SEEDS], dtype=float) for way in WAYS}
    plain = sum(cells["none", seed]["cpu_seconds"] for seed in SEEDS)
    summary = {}
    for way in WAYS:
        entry: dict = {"accuracy": round(float(hits[way].mean()), 4)}
        if way != "none":
            effect = estimate_effect(hits[way], hits["none"], is_higher_better=True)
            entry["difference"] = [round(float(v), 4) for v in (effect.value, effect.low, effect.high)]
            entry["skipped"] = [cells[way, seed]["skipped"] for seed in SEEDS]
            entry["cpu_ratio"] = round(sum(cells[way, seed]["cpu_seconds"] for seed in SEEDS) / plain, 3)
        summary[way] = entry
    return summary


def main() -> None:
    """Run the cells that are missing, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    result: dict = {"machine": machine(), "rows": N_ROWS, "epochs": EPOCHS, "seeds": len(SEEDS), "sets": {}}
    for name in SETS:
        rows, test = load_task(name, given.data)
        cells = {}
        for seed in SEEDS:
            for way in WAYS:
                path = given.work / f"skip-{name}-{way}-{seed}.json"
                cells[way, seed] = run_cell(rows.head(N_ROWS), test.head(N_TEST), way, seed, path)
                print(path.stem, {**cells[way, seed], "hits": None}, flush=True)
        result["sets"][name] = {"test_rows": len(cells["none", 0]["hits"]), **summarize(cells)}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(name, json.dumps(result["sets"][name]), flush=True)


if __name__ == "__main__":
    main()
