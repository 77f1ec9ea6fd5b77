"""Does `label ask` save labels where the learner is MiniLM with LoRA, on rows not used before?

    python benchmarks/label_ask_lora.py --data DIR --work FOLDER    # resumable
    python benchmarks/label_ask_lora.py --work FOLDER --summary     # results/label_ask_lora.json

As `label_ask.py`, with other rows: the pools of 2,000 are drawn from the rows behind the 4,000 that
the design was chosen on, and the learner is `thresher train` at its defaults, one training per set,
arm and number of labels. Rows are asked for as `label ask` does, by its linear classifier. Random
rows are one order per pool. Differences are paired by test row (`thresher.evaluation.effect`).
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
from label_ask import Task, find_crossing, get_batch, replay
from machine import machine

import thresher as th
from thresher.evaluation.effect import estimate_effect

SIZES = {"agnews": (100, 200, 300, 400, 600), "banking77": (200, 400, 500, 600, 800, 1000)}
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
            steps = list(range(get_batch(name), SIZES[name][-1] + 1, get_batch(name)))
            order, _ = replay(task, pool, "auto", steps, rng)
            orders = {"ask": order, "random": np.random.default_rng([19, draw]).permutation(pool)}
            for size in reversed(SIZES[name]):
                for arm, order in orders.items():
                    learn(
                        rows[order[:size].tolist()], test, work / f"{name}-{draw}-{arm}-{size}.json", task, order[:size]
                    )


def learn(rows: pl.DataFrame, test: pl.DataFrame, cell: Path, task: Task, order: np.ndarray) -> None:
    """Train on some rows, and write down which test rows each learner gets right."""
    if cell.exists():
        return
    began, out = time.process_time(), cell.with_suffix(".adapter")
    th.train(th.load(rows), eval=th.load(test), control="none", out=out)
    outcomes = pl.read_parquet(out / "predictions.parquet")
    hits = "".join(str(int(value)) for value in outcomes["correct"])
    linear = "".join(str(int(value)) for value in task.grade(order))
    seconds = round(time.process_time() - began, 1)
    cell.write_text(json.dumps({"hits": hits, "linear": linear, "cpu_seconds": seconds}))
    shutil.rmtree(out)
    share = np.mean([int(value) for value in hits])
    print(f"{cell.stem}: {100 * share:.1f} % ({seconds} CPU s)", flush=True)


def summarize(work: Path) -> dict:
    """Return the curves of each set, what was saved, and where asking is behind."""
    result: dict = {"machine": machine(), "n_test": N_TEST_ROWS, "sets": {}}
    for name, sizes in SIZES.items():
        cells = {}
        for path in work.glob(f"{name}-*.json"):
            _, draw, arm, size = path.stem.rsplit("-", 3)
            cells[int(draw), arm, int(size)] = json.loads(path.read_text())
        draws = sorted(
            {draw for draw, _, _ in cells if all((draw, a, n) in cells for a in ("ask", "random") for n in sizes)}
        )
        if not draws:
            continue
        learners = {}
        for learner in ("hits", "linear"):
            hits = {
                arm: np.array(
                    [[[int(c) for c in cells[d, arm, n][learner]] for n in sizes] for d in draws], dtype=float
                )
                for arm in ("ask", "random")
            }
            means = {arm: values.mean(axis=2) for arm, values in hits.items()}
            needed = [find_crossing(list(sizes), means["ask"][i], means["random"][i, -1]) for i in range(len(draws))]
            effects = [estimate_effect(hits["ask"][:, k], hits["random"][:, k]) for k in range(len(sizes))]
            learners["lora" if learner == "hits" else "linear"] = {
                "ask": means["ask"].round(4).tolist(),
                "random": means["random"].round(4).tolist(),
                "labels_needed": needed,
                "saved": [None if n is None else round(1 - n / sizes[-1], 3) for n in needed],
                "differences": [[round(float(v), 4) for v in (e.value, e.low, e.high)] for e in effects],
                "sizes_below_random": [n for n, e in zip(sizes, effects, strict=True) if e.high < 0],
            }
        seconds = sum(cell["cpu_seconds"] for cell in cells.values())
        result["sets"][name] = {"sizes": list(sizes), "draws": draws, "cpu_seconds": round(seconds), **learners}
    return result


def main() -> None:
    """Run, or summarize."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", default="agnews,banking77")
    parser.add_argument("--draws", default="0,1")
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    if given.summary:
        RESULT.write_text(json.dumps(summarize(given.work), indent=1) + "\n")
    else:
        run(given.data, given.work, given.sets.split(","), [int(draw) for draw in given.draws.split(",")])


if __name__ == "__main__":
    main()
