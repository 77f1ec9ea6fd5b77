"""How many labels does `label ask` save, and does it say stop in time? Labels hidden and revealed.

    python benchmarks/label_ask.py --data DIR --work FOLDER     # resumable, cell by cell
    python benchmarks/label_ask.py --work FOLDER --summary      # writes results/label_ask.json
    python benchmarks/label_ask.py --markdown                   # the table of docs/labels.md

Four sets whose labels are known: Banking77, the embedded product listings (their labels as given),
and the true labels of AG News and ChemProt. Each of five draws takes another pool of 2,000 rows out
of 4,000; the 1,000 test rows (of products 958) stay. Batches of 50 rows (Banking77: 100) are asked
for, answered with the true label, and learned, up to 600 labels (1,000). Everything is at its
default: rows are embedded by MiniLM, chosen by `choose_rows`, and the gain of the next batch is
estimated by `estimate_gain` from the labeled rows alone.

The learner is a logistic regression on the same vectors. Random rows are drawn five times per pool.
Differences are paired by draw and test row (`thresher.evaluation.effect`). The true stop is the
first size at which the law fitted to the mean accuracies on the test rows (up to 800 labels, 1,400)
brings less than `delta` with the next batch.
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
from thresher.evaluation.effect import estimate_effect
from thresher.features import make_context
from thresher.labeling.ask import count_represented
from thresher.labeling.choose import Known, choose_rows, resolve_way
from thresher.labeling.gain import estimate_gain
from thresher.labeling.pool import embed_texts
from thresher.selectors.pilot.student import fit_student

NAMES = ("banking77", "products", "agnews", "chemprot")
ARMS = ("auto", "cover", "doubt")
N_SOURCE, N_POOL, N_TEST, DRAWS, N_RANDOM, N_JUDGES = 4000, 2000, 1000, 5, 5, 200
DELTAS = (0.01, 0.005)
RESULT = Path(__file__).parent / "results/label_ask.json"


def get_batch(name: str) -> int:
    """Return the rows of a batch."""
    return 100 if name == "banking77" else 50


def list_sizes(name: str, *, is_long: bool = False) -> list[int]:
    """Return the numbers of labels; the longer list is for the true stop."""
    last = (1400 if is_long else 1000) if name == "banking77" else (800 if is_long else 600)
    return list(range(get_batch(name), last + 1, get_batch(name)))


def load_task(name: str, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return texts and labels to draw pools from, and those to test on."""
    if name == "banking77":
        parts = [
            pl.read_csv(folder / name / f"{part}.csv").select("text", label="category") for part in ("train", "test")
        ]
    elif name == "products":
        here = Path(__file__).parents[1] / "data/products"
        parts = [th.load(here / f"{p}.jsonl").frame.select(text="prompt", label="response") for p in ("train", "test")]
    else:
        rows = pl.read_ndjson(folder / f"noise/noise_{name}_weak.jsonl").unique("text", maintain_order=True)
        rows = rows.select("text", label=pl.col("true").cast(pl.String)).sample(fraction=1.0, shuffle=True, seed=0)
        parts = [rows.tail(-N_TEST), rows.head(N_TEST)]
    rows, test = (
        part.unique("text", maintain_order=True).sample(fraction=1.0, shuffle=True, seed=1).head(n)
        for part, n in zip(parts, (N_SOURCE, N_TEST), strict=True)
    )
    return rows, test.filter(~pl.col("text").is_in(rows["text"].implode()))


class Task:
    """Vectors and classes of a set."""

    def __init__(self, name: str, folder: Path, parts: tuple[pl.DataFrame, pl.DataFrame] | None = None) -> None:
        rows, test = parts or load_task(name, folder)
        context = make_context(encoder="minilm").resolved()
        self.x = embed_texts(rows["text"].to_list(), context, 384)
        self.test_x = embed_texts(test["text"].to_list(), context, 384)
        names = sorted(set(rows["label"]))
        self.y = np.searchsorted(names, rows["label"].to_list())
        known = np.isin(test["label"].to_list(), names)
        self.test_y = np.where(known, np.minimum(np.searchsorted(names, test["label"].to_list()), len(names) - 1), -1)

    def grade(self, rows: np.ndarray) -> np.ndarray:
        """Return which test rows a learner of these rows gets right."""
        model = fit_student(self.x[rows], self.y[rows])
        predicted = self.y[rows[0]] if model is None else model.predict(self.test_x)
        return (predicted == self.test_y).astype(float)


def replay(task: Task, pool: np.ndarray, by: str, sizes: list[int], rng, told_sizes=()) -> tuple[list, list]:
    """Ask batch by batch; return the labeled rows in order, and the gains that were told."""
    labeled, told = np.zeros(0, np.int64), []
    seed = int(rng.integers(1 << 30))
    for size in sizes:
        open_rows = np.setdiff1d(pool, labeled)
        code = np.unique(task.y[labeled], return_inverse=True)[1]
        known = Known(task.x[labeled], code if len(labeled) else None)
        if len(labeled) in told_sizes:
            test = np.random.default_rng(seed).permutation(len(task.test_y))[:N_JUDGES]
            seen = np.unique(task.y[labeled])
            place = np.minimum(np.searchsorted(seen, task.test_y[test]), len(seen) - 1)
            names = np.where(seen[place] == task.test_y[test], place, -1)
            gain = estimate_gain(
                known.vectors,
                known.label,
                batch=size - len(labeled),
                delta=0.01,
                stands_for=count_represented(task.x[open_rows], known.vectors),
            )
            asked = estimate_gain(
                known.vectors, known.label, batch=size - len(labeled), delta=0.01, test=(task.test_x[test], names)
            )
            told.append([len(labeled), *(None if g is None else g.gain.to_json() for g in (gain, asked))])
        n_rows = size - len(labeled)
        chosen = choose_rows(task.x[open_rows], known, n_rows, by=resolve_way(by, known), rng=rng)
        labeled = np.concatenate([labeled, open_rows[chosen.rows]])
    return labeled, told


def run_cell(task: Task, name: str, draw: int, work: Path) -> None:
    """Replay one draw of the pool, and write it down."""
    began = time.process_time()
    rng = np.random.default_rng([3, draw])
    pool = np.sort(rng.permutation(len(task.y))[:N_POOL])
    sizes, longer = list_sizes(name), list_sizes(name, is_long=True)
    cell = {"set": name, "draw": draw, "hits": {}, "told": []}
    orders = {}
    for by in ARMS:
        last = longer if by == "auto" else sizes
        orders[by], told = replay(task, pool, by, last, rng, set(sizes) if by == "auto" else ())
        cell["told"] = cell["told"] or told
        hits = [task.grade(orders[by][:size]) for size in last]
        cell["hits"][by] = ["".join(str(int(value)) for value in row) for row in hits]
        print(f"{name} {draw} {by}: " + " ".join(f"{100 * row.mean():.1f}" for row in hits), flush=True)
    shuffles = [np.random.default_rng([9, draw, r]).permutation(pool) for r in range(N_RANDOM)]
    hits = [np.sum([task.grade(order[:size]) for order in shuffles], axis=0) for size in sizes]
    cell["hits"]["random"] = ["".join(str(int(value)) for value in row) for row in hits]
    print(f"{name} {draw} random: " + " ".join(f"{100 * row.mean() / N_RANDOM:.1f}" for row in hits), flush=True)
    cell["cpu_seconds"] = round(time.process_time() - began, 1)
    partial = work / f"{name}-{draw}.partial"
    partial.write_text(json.dumps(cell))
    partial.replace(partial.with_suffix(".json"))


def run(data: Path, work: Path) -> None:
    """Run the cells that are missing."""
    work.mkdir(parents=True, exist_ok=True)
    tasks: dict[str, Task] = {}
    for draw in range(DRAWS):
        for name in NAMES:
            if not (work / f"{name}-{draw}.json").is_file():
                tasks[name] = tasks.get(name) or Task(name, data)
                run_cell(tasks[name], name, draw, work)


def find_crossing(sizes: list[int], curve: np.ndarray, target: float) -> float:
    """Return the labels at which a curve first reaches an accuracy, between sizes by a line."""
    above = np.flatnonzero(curve >= target)
    if not len(above):
        return float("inf")
    i = above[0]
    if i == 0:
        return float(sizes[0])
    return float(np.interp(target, curve[i - 1 : i + 1], sizes[i - 1 : i + 1]))


def summarize_set(name: str, cells: list[dict]) -> dict:
    """Return what one set shows."""
    sizes, longer, batch = list_sizes(name), list_sizes(name, is_long=True), get_batch(name)
    hits = {
        arm: np.array([[[int(c) for c in row] for row in cell["hits"][arm]] for cell in cells], dtype=float)
        for arm in (*ARMS, "random")
    }  # (draws, sizes, test rows)
    hits["random"] /= N_RANDOM
    curves = {arm: values.mean(axis=2) for arm, values in hits.items()}  # (draws, sizes)
    target = curves["random"][:, -1].mean()
    entry = {"draws": len(cells), "test_rows": hits["random"].shape[2], "sizes": sizes, "random_last": round(target, 4)}
    entry["accuracy"] = {arm: np.round(curve.mean(axis=0), 4).tolist() for arm, curve in curves.items()}
    entry["arms"] = {}
    draws = np.random.default_rng(0).integers(len(cells), size=(2000, len(cells)))
    for arm in ARMS:
        need = find_crossing(sizes, curves[arm][:, : len(sizes)].mean(axis=0), target)
        again = [
            find_crossing(sizes, curves[arm][d, : len(sizes)].mean(axis=0), curves["random"][d, -1].mean())
            for d in draws
        ]
        low, high = np.quantile(np.minimum(again, 2 * sizes[-1]), [0.025, 0.975])
        effects = [
            estimate_effect(hits[arm][:, i], hits["random"][:, i], is_higher_better=True) for i in range(len(sizes))
        ]
        entry["arms"][arm] = {
            "labels_needed": None if np.isinf(need) else round(need),
            "saved": None if np.isinf(need) else round(1 - need / sizes[-1], 3),
            "saved_interval": [round(1 - min(high, 2 * sizes[-1]) / sizes[-1], 3), round(1 - low / sizes[-1], 3)],
            "gain": [[round(100 * e.value, 2), round(100 * e.low, 2), round(100 * e.high, 2)] for e in effects],
            "below_beyond_doubt": [size for size, e in zip(sizes, effects, strict=True) if e.high < 0],
            "above_beyond_doubt": [size for size, e in zip(sizes, effects, strict=True) if e.low > 0],
        }
    truth = fit_curve(longer, curves["auto"].T.tolist(), is_higher_better=True)
    entry["stop"] = {}
    for delta in DELTAS:
        true = next((s for s in longer if truth.gain(s, batch).median < delta), None)
        entry["stop"][str(delta)] = {"true": true}
        for column, judge in ((1, "labeled rows"), (2, f"{N_JUDGES} test rows")):
            said = [next((each[0] for each in cell["told"] if says_stop(each[column], delta)), None) for cell in cells]
            ratios = [None if true is None or s is None else round(s / true, 2) for s in said]
            entry["stop"][str(delta)][judge] = {
                "said": said,
                "ratios": ratios,
                "within_15_percent": sum(r is not None and abs(r - 1) <= 0.15 for r in ratios),
                "accuracy_to_true_stop": compare_stops(curves["auto"], longer, said, true, sizes[-1]),
            }
    return entry


def compare_stops(
    curves: np.ndarray, sizes: list[int], said: list[int | None], true: int | None, last: int
) -> list[float]:
    """Return, per draw, how many points the accuracy at a stop is above that at the true one.

    Args:
        curves: (draws, sizes) accuracies.
        sizes: labels.
        said: stops; None counts as the last size that was tried.
        true: stop of all draws together.
        last: size that was tried.
    """
    if true is None:
        return []
    at = [sizes.index(last if stop is None else stop) for stop in said]
    return [round(100 * float(curve[i] - curve[sizes.index(true)]), 1) for curve, i in zip(curves, at, strict=True)]


def says_stop(gain: dict | None, delta: float) -> bool:
    """Return whether `label ask` says stop: as `Gain.says_stop`."""
    return gain is not None and gain["median"] < delta and gain["high"] < 2 * delta


def summarize(work: Path) -> dict:
    """Return the results of all cells that are done."""
    cells: dict[str, list[dict]] = {}
    for path in sorted(work.glob("*.json")):
        cell = json.loads(path.read_text())
        cells.setdefault(cell["set"], []).append(cell)
    return {
        "command": "python benchmarks/label_ask.py --data DIR --work FOLDER",
        "pool": N_POOL,
        "batch": {name: get_batch(name) for name in NAMES},
        "sets": {name: summarize_set(name, cells[name]) for name in NAMES if len(cells.get(name, ())) > 1},
        "cpu_seconds": round(sum(cell["cpu_seconds"] for each in cells.values() for cell in each)),
        "machine": machine("scikit-learn"),
    }


def print_markdown(result: dict) -> None:
    """Print the tables of docs/labels.md."""
    print("| set | random, last | labels needed | saved | saved by cover | by doubt | below random |")
    print("|---|---|---|---|---|---|---|")
    for name, entry in result["sets"].items():
        auto = entry["arms"]["auto"]
        others = [entry["arms"][arm]["saved"] for arm in ("cover", "doubt")]
        low, high = auto["saved_interval"]
        print(
            f"| {name} | {100 * entry['random_last']:.1f} % with {entry['sizes'][-1]:,} | {auto['labels_needed']} | "
            f"{100 * (auto['saved'] or 0):.0f} % [{100 * low:.0f}, {100 * high:.0f}] | "
            + " | ".join("none" if s is None else f"{100 * s:.0f} %" for s in others)
            + f" | at {len(auto['below_beyond_doubt'])} of {len(entry['sizes'])} sizes |"
        )
    print()
    print(f"| set | true stop | said, judged by labeled rows | said, judged by {N_JUDGES} test rows |")
    print("|---|---|---|---|")
    for name, entry in result["sets"].items():
        stop = entry["stop"]["0.01"]
        said = [
            ", ".join("later" if s is None else str(s) for s in stop[judge]["said"])
            for judge in ("labeled rows", f"{N_JUDGES} test rows")
        ]
        print(f"| {name} | {stop['true']} | {said[0]} | {said[1]} |")


def main() -> None:
    """Run, summarize, or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if options.markdown:
        print_markdown(json.loads(RESULT.read_text()))
    elif options.summary:
        RESULT.write_text(json.dumps(summarize(options.work), indent=1) + "\n")
        print_markdown(json.loads(RESULT.read_text()))
    else:
        run(options.data, options.work)


if __name__ == "__main__":
    main()
