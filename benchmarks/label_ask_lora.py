"""Does `label ask` save labels where the learner is MiniLM with LoRA, on rows not used before?

    python benchmarks/label_ask_lora.py --data DIR --work FOLDER    # resumable
    python benchmarks/label_ask_lora.py --work FOLDER --summary     # results/label_ask_lora.json

As `label_ask.py`, with other rows: the pools of 2,000 are drawn from the rows behind the 4,000 that
the design was chosen on, and the learner is `thresher train` at its defaults. Rows are asked for as
`label ask` does, by its linear classifier; random rows are one order per pool. Two thirds of the
labels are asked for, and held against random rows: as many of them (is asking ever worse?), and all
of them (are a third of the labels saved?). Differences are paired by draw and test row
(`thresher.evaluation.effect`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import label_ask
import numpy as np
import polars as pl
from label_ask import Task, get_batch, replay
from machine import machine

import thresher as th
from thresher.evaluation.effect import estimate_effect

SIZES = {"banking77": (400, 600), "agnews": (200, 300)}  # labels asked for, and of random rows
N_TEST_ROWS = 500  # of the test rows, which a training measures each time
RESULT = Path(__file__).parent / "results/label_ask_lora.json"


def load_fresh(name: str, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return rows that no replay has drawn from, and the test rows."""
    known, test = label_ask.load_task(name, folder)
    n_before = label_ask.N_SOURCE
    label_ask.N_SOURCE = 2 * n_before
    try:
        rows, _ = label_ask.load_task(name, folder)
    finally:
        label_ask.N_SOURCE = n_before
    fresh = rows.filter(~pl.col("text").is_in(known["text"].implode()))
    return fresh, test.filter(~pl.col("text").is_in(fresh["text"].implode()))


def run(data: Path, work: Path, names: list[str], draws: list[int]) -> None:
    """Ask, train and measure; finished trainings are passed over."""
    work.mkdir(parents=True, exist_ok=True)
    for name in names:
        rows, test = load_fresh(name, data)
        test = test.head(N_TEST_ROWS)
        task = Task(name, data, (rows, test))
        for draw in draws:
            rng = np.random.default_rng([17, draw])
            pool = np.sort(rng.permutation(len(rows))[: label_ask.N_POOL])
            few, many = SIZES[name]
            asked, _ = replay(task, pool, "auto", list(range(get_batch(name), few + 1, get_batch(name))), rng)
            shuffled = np.random.default_rng([19, draw]).permutation(pool)
            for arm, order in (("ask", asked[:few]), ("random", shuffled[:many]), ("random", shuffled[:few])):
                learn(rows[order.tolist()], test, work / f"{name}-{draw}-{arm}-{len(order)}.json", task, order)


def learn(rows: pl.DataFrame, test: pl.DataFrame, cell: Path, task: Task, order: np.ndarray) -> None:
    """Train on some rows, and write down which test rows each learner gets right."""
    if cell.exists():
        return
    began, out = time.process_time(), cell.with_suffix(".adapter")
    th.train(th.load(rows), eval=th.load(test), control="none", base="none", out=out)
    outcomes = pl.read_parquet(out / "predictions.parquet")
    hits = "".join(str(int(value)) for value in outcomes["correct"])
    linear = "".join(str(int(value)) for value in task.grade(order))
    seconds = round(time.process_time() - began, 1)
    cell.write_text(json.dumps({"hits": hits, "linear": linear, "cpu_seconds": seconds}))
    shutil.rmtree(out)
    share = np.mean([int(value) for value in hits])
    print(f"{cell.stem}: {100 * share:.1f} % ({seconds} CPU s)", flush=True)


def summarize(work: Path) -> dict:
    """Return accuracies, and asking held against as many and half as many again random rows."""
    result: dict = {"machine": machine(), "n_test": N_TEST_ROWS, "sets": {}}
    for name, (few, many) in SIZES.items():
        arms = {"ask": f"ask-{few}", "random": f"random-{few}", "random_more": f"random-{many}"}
        cells: dict[int, dict] = {}
        for draw in range(20):
            paths = {arm: work / f"{name}-{draw}-{stem}.json" for arm, stem in arms.items()}
            if all(path.exists() for path in paths.values()):
                cells[draw] = {arm: json.loads(path.read_text()) for arm, path in paths.items()}
        if len(cells) < 2:
            continue
        entry: dict = {"asked": few, "random": many, "draws": sorted(cells)}
        for learner in ("hits", "linear"):
            hits = {
                arm: np.array([[int(c) for c in cell[arm][learner]] for cell in cells.values()], dtype=float)
                for arm in arms
            }
            entry["lora" if learner == "hits" else "linear"] = {
                "accuracy": {arm: round(float(values.mean()), 4) for arm, values in hits.items()},
                "to_as_many": describe(hits["ask"], hits["random"]),
                "to_more": describe(hits["ask"], hits["random_more"]),
            }
        entry["cpu_seconds"] = round(sum(each["cpu_seconds"] for cell in cells.values() for each in cell.values()))
        result["sets"][name] = entry
    return result


def describe(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Return a paired difference with its interval."""
    effect = estimate_effect(ours, theirs, is_higher_better=True)
    return [round(float(value), 4) for value in (effect.value, effect.low, effect.high)]


def main() -> None:
    """Run, or summarize."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", default="banking77,agnews")
    parser.add_argument("--draws", default="0,1")
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    if given.summary:
        RESULT.write_text(json.dumps(summarize(given.work), indent=1) + "\n")
    else:
        run(given.data, given.work, given.sets.split(","), [int(draw) for draw in given.draws.split(",")])


if __name__ == "__main__":
    main()
