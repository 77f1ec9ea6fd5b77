"""Are the rows that `auto` and `prototypes` choose better than random ones? Twenty cells, paired.

    python benchmarks/auto.py --data PATH --work FOLDER --learner linear
    python benchmarks/auto.py --data PATH --work FOLDER --learner lora --hours 2
    python benchmarks/auto.py --work FOLDER --summary    # writes results/auto.json
    python benchmarks/auto.py --markdown                 # the tables of docs/selection.md

`--others` before the rest does the same for three data sets that `auto` was not built on, at 5, 10
and 30 % (results/auto_others.json): the category of an instruction of Dolly (8), which of 29 data
sets a T0 prompt is from, and whether a written solution of a GSM8K question is correct, which a
classifier of texts can hardly tell.

Five data sets: the embedded product listings, Banking77 intents, which attribute a value of an
AE-110k title is, and AG News and ChemProt with the labels of rules (16 and 46 % wrong; their test
rows have the true labels). Each of five seeds draws another pool of 2,000 rows from the set; the
1,000 test rows stay, and none of them is in a pool. Each method chooses 2, 5, 10 and 30 %, with
everything at its default (static embeddings on a CPU). Two learners judge: `lora` is the default
classifier, MiniLM with LoRA, its texts cut at 64 tokens; `linear` is a logistic regression on the
frozen mean-pooled vectors of MiniLM, its penalty cross-validated in the training rows: not the
encoder that chose.

Accuracy and macro-F1 less those of as many random rows, with the 95 % interval over seeds and test
rows of `thresher.evaluation.effect`; of a single draw over test rows alone, which is no verdict.
Pools of one set overlap (of products two of five rows in two pools), so the interval is of this
set. Where `auto` answers random rows, they are the rows of `random`, and the difference is zero.

Each cell is a file in `FOLDER`, so a killed benchmark goes on, and what is done can be summarized
at any time: cells run by seed, then by budget, the small ones first, so that what is done is
balanced. The summary keeps the predictions of all cells in results/auto_cells.parquet, so another
machine can go on where this one stopped.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import learner
import numpy as np
import polars as pl
import real_tasks
from machine import machine

import thresher as th
from thresher.dataset import Dataset
from thresher.dataset.own_text.matching import match_rows
from thresher.evaluation.effect import estimate_effect
from thresher.selectors.pilot.student import rate_predictions
from thresher.trainer.settings import TrainSettings

NAMES = ("products", "banking77", "ae110k-attributes", "agnews", "chemprot")
OTHERS = ("dolly-category", "t0-source", "gsm8k-correct")
SHARES, SEEDS = (0.02, 0.05, 0.1, 0.3), 5
METHODS = ("random", "auto", "prototypes")
N_POOL, N_TEST, MAX_LENGTH = 2000, 1000, 64
N_ATTRIBUTES = (3342, 1131)  # rows there are of AE-110k, training and test
RESULT = Path(__file__).parent / "results/auto.json"
CELLS = RESULT.with_name("auto_cells.parquet")


def load_other(name: str, folder: Path) -> tuple[Dataset, Dataset]:
    """Return rows and test rows of a data set that `auto` was not built on; texts are cut."""
    if name == "dolly-category":
        rows = json.loads((folder / "dolly_3k/dolly_3k.json").read_text())
        pairs = [(row["instruction"][:400], row["category"]) for row in rows]
    elif name == "t0-source":
        with gzip.open(folder / "t0/t0_pool.jsonl.gz", "rt") as lines:
            pairs = [(row["prompt"][:300], row["dataset"]) for row in map(json.loads, lines)]
        pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:6000]]
    else:
        with (folder / "noise/gsm8k_solutions_correctness.jsonl").open() as lines:
            pairs = [(row["response"][:400], str(row["correct"])) for row in map(json.loads, lines)]
    table = pl.DataFrame(pairs, schema=["text", "label"], orient="row").unique("text", maintain_order=True)
    table = table.sample(fraction=1.0, shuffle=True, seed=1)
    n_test = min(N_TEST, len(table) // 3)
    return th.load(table.tail(-n_test)), th.load(table.head(n_test))


def load_task(name: str, folder: Path) -> tuple[Dataset, Dataset]:
    """Return all rows to draw pools from, and the test rows, none of which is among them."""
    if name in OTHERS:
        rows, test = load_other(name, folder)
    elif name == "products":
        here = Path(__file__).parents[1] / "data/products"
        rows, test = (th.load(here / f"{part}.jsonl") for part in ("train", "test"))
    elif name == "banking77":
        rows, test = (th.load(pl.read_csv(folder / name / f"{part}.csv")) for part in ("train", "test"))
    elif name == "ae110k-attributes":
        real_tasks.N_POOL, real_tasks.N_TEST = N_ATTRIBUTES
        rows, test, _ = real_tasks.attributes(folder)
    else:
        learner.N_TEST = N_TEST // 2
        rows, test = learner.load_noise(folder, name)
    test = test.take(np.random.default_rng(0).permutation(len(test))[:N_TEST])
    return rows.take(np.flatnonzero(match_rows(rows, test) < 0)), test


def draw_pool(rows: Dataset, seed: int) -> Dataset:
    """Return the pool of a seed."""
    return rows.take(np.sort(np.random.default_rng([7, seed]).permutation(len(rows))[:N_POOL]))


def embed_all(name: str, rows: Dataset, test: Dataset, work: Path) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """Return the place of each row of a pool, MiniLM's vectors of them, and of the test rows."""
    seen = np.unique(np.concatenate([draw_pool(rows, seed).frame["row_id"].to_numpy() for seed in range(SEEDS)]))
    used = rows.take(np.flatnonzero(rows.frame["row_id"].is_in(pl.Series(seen).implode()).to_numpy()))
    at = {row_id: i for i, row_id in enumerate(used.frame["row_id"])}
    learner.MAX_LENGTH = MAX_LENGTH
    x, held_out = (
        learner.embed(part, work / f"{name}-{kind}.npz")["probe mean"]
        for part, kind in ((used, "rows"), (test, "test"))
    )
    return at, x, held_out


def choose(pool: Dataset, method: str, share: float, seed: int) -> dict:
    """Return what a method chooses: positions in the pool, seconds, and by what `auto` chose."""
    began, cpu = time.monotonic(), time.process_time()
    subset = th.select(pool, method, budget=round(share * len(pool)), seed=seed, order="rank", encoder="static")
    chosen = {row_id: i for i, row_id in enumerate(pool.frame["row_id"])}
    rows = sorted(chosen[row_id] for row_id in subset.dataset.frame["row_id"])
    pilot = subset.manifest.content.get("pilot")
    return {
        "rows": rows,
        "digest": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12],
        "seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "chosen": None if pilot is None else pilot["chosen"],
        "why": None if pilot is None else pilot["why"],
    }


def run_lora(train: Dataset, test: Dataset, seed: int) -> list[str]:
    """Return the predictions of the default classifier."""
    settings = TrainSettings(max_length=MAX_LENGTH, save_every_s=3600)
    adapter = th.train(train, eval=test, control="none", settings=settings, seed=seed)
    table = pl.read_parquet(adapter.path / "predictions.parquet")
    said = dict(zip(table["row_id"], table["prediction"], strict=True))
    return [said[name] for name in test.frame["row_id"]]


def run_cell(name: str, share: float, seed: int, kind: str, folder: Path, work: Path, cache: dict) -> None:
    """Choose by every method, learn each different choice once, and write it all down."""
    if name not in cache:
        cache.clear()
        cache[name] = load_task(name, folder)
    rows, test = cache[name]
    if kind == "linear" and "vectors" not in cache:
        cache["vectors"] = embed_all(name, rows, test, work)
    pool = draw_pool(rows, seed)
    cell = {"set": name, "share": share, "seed": seed, "learner": kind, "pool": len(pool), "arms": {}}
    cell["truth"] = test.frame["response"].to_list()
    learned: dict[str, dict] = {}
    for method in METHODS:
        arm = choose(pool, method, share, seed)
        train = pool.take(np.array(arm.pop("rows")))
        if arm["digest"] not in learned:
            began = time.process_time()
            if kind == "linear":
                at, x, held_out = cache["vectors"]
                said = learner.run_probe(train, x[[at[row_id] for row_id in train.frame["row_id"]]], held_out)
            else:
                said = run_lora(train, test, seed)
            learned[arm["digest"]] = {"said": said, "train_cpu_seconds": round(time.process_time() - began, 1)}
        cell["arms"][method] = {**arm, "n": len(train), **learned[arm["digest"]]}
        hits = np.mean([a == b for a, b in zip(cell["arms"][method]["said"], cell["truth"], strict=True)])
        print(f"{kind} {name} {share:.0%} seed {seed} {method} ({arm['chosen']}): {hits:.3f}", flush=True)
    partial = work / f"{kind}-{name}-{share}-{seed}.partial"
    partial.write_text(json.dumps(cell) + "\n")
    partial.replace(partial.with_suffix(".json"))


def run(options: argparse.Namespace) -> None:
    """Run the cells that are missing, in an order in which each beginning is balanced."""
    options.work.mkdir(parents=True, exist_ok=True)
    began, cache = time.monotonic(), {}
    by_set = options.learner == "linear"  # it costs little, so each set is loaded once
    jobs = [(seed, share, name) for seed in range(SEEDS) for share in SHARES for name in NAMES]
    done = {(cell["learner"], cell["set"], cell["share"], cell["seed"]) for cell in read_cells(options.work)}
    for seed, share, name in sorted(jobs, key=lambda job: NAMES.index(job[2])) if by_set else jobs:
        if (options.learner, name, share, seed) in done:
            continue
        if time.monotonic() - began > 3600 * options.hours:
            print("the hours are over: run the same command to go on", flush=True)
            return
        run_cell(name, share, seed, options.learner, options.data, options.work, cache)


def estimate(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """Return the mean difference and its interval; values are (seeds, test rows)."""
    if len(ours) < 2:  # over test rows only
        gap = (ours - theirs)[0]
        reach = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
        return {"value": gap.mean(), "low": gap.mean() - reach, "high": gap.mean() + reach}
    if (ours == theirs).all():
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    effect = asdict(estimate_effect(ours, theirs, is_higher_better=True))
    return {name: effect[name] for name in ("value", "low", "high")}


def read_cells(work: Path) -> list[dict]:
    """Return all cells that are done: those of the folder, and those kept with the results."""
    cells = {}
    if CELLS.is_file():
        for line in pl.read_parquet(CELLS).iter_rows(named=True):
            key = tuple(line.pop(name) for name in ("learner", "set", "share", "seed", "pool"))
            cell = cells.setdefault(key[:4], dict(zip(("learner", "set", "share", "seed", "pool"), key, strict=True)))
            cell["truth"] = line.pop("truth")
            cell.setdefault("arms", {})[line.pop("method")] = line
    for path in sorted(work.glob("l*-*.json")):
        cell = json.loads(path.read_text())
        cells[cell["learner"], cell["set"], cell["share"], cell["seed"]] = cell
    return [cells[key] for key in sorted(cells)]


def keep_cells(cells: list[dict]) -> None:
    """Write all cells, a line an arm."""
    lines = []
    for cell in cells:
        facts = {name: cell[name] for name in ("learner", "set", "share", "seed", "pool", "truth")}
        lines += [{**facts, "method": method, **arm} for method, arm in cell["arms"].items()]
    pl.DataFrame(lines).write_parquet(CELLS, compression="zstd", compression_level=19)


def summarize(cells: list[dict]) -> dict:
    """Return scores and differences of each cell, over the seeds that are done."""
    groups: dict[tuple, list[dict]] = {}
    for cell in cells:
        groups.setdefault((cell["learner"], NAMES.index(cell["set"]), cell["share"]), []).append(cell)
    entries = []
    for (kind, number, share), cells in sorted(groups.items()):
        names = sorted(set(cells[0]["truth"]).union(*(arm["said"] for cell in cells for arm in cell["arms"].values())))
        code = {label: i for i, label in enumerate(names)}
        truth = np.array([code[label] for label in cells[0]["truth"]])
        values = {
            method: [
                rate_predictions(np.array([code[s] for s in cell["arms"][method]["said"]]), truth) for cell in cells
            ]
            for method in METHODS
        }
        entry = {"learner": kind, "set": NAMES[number], "share": share, "seeds": [cell["seed"] for cell in cells]}
        entry |= {"rows": cells[0]["arms"]["random"]["n"], "test_rows": len(truth), "arms": {}}
        for method in METHODS:
            arms = [cell["arms"][method] for cell in cells]
            entry["arms"][method] = arm = {
                "seconds": float(np.mean([arm["seconds"] for arm in arms])),
                "cpu_seconds": float(np.mean([arm["cpu_seconds"] for arm in arms])),
                "train_cpu_seconds": float(np.mean([arm["train_cpu_seconds"] for arm in arms])),
            }
            for metric in ("accuracy", "macro_f1"):
                ours, theirs = (np.stack([getattr(g, metric) for g in values[m]]) for m in (method, "random"))
                arm[metric] = float(ours.mean())
                if method != "random":
                    arm[f"{metric}_to_random"] = {k: float(v) for k, v in estimate(ours, theirs).items()}
            if method == "auto":
                arm["chosen"] = [arm["chosen"] for arm in arms]
        entries.append(entry)
    return {"machine": machine("torch", "transformers", "peft"), "counts": count(entries), "entries": entries}


def count(entries: list[dict]) -> list[dict]:
    """Return in how many cells each method is better or worse than random rows beyond doubt.

    The interval of a single draw knows nothing of how much draws and trainings differ, so such a
    cell counts as neither.
    """
    counts = []
    for kind in sorted({entry["learner"] for entry in entries}):
        for method in METHODS[1:]:
            for metric in ("accuracy", "macro_f1"):
                cells = [e for e in entries if e["learner"] == kind]
                mine = [e["arms"][method][f"{metric}_to_random"] for e in cells]
                judged = [d for d, e in zip(mine, cells, strict=True) if len(e["seeds"]) > 1]
                line = {"learner": kind, "method": method, "metric": metric, "cells": len(mine)}
                line["draws"] = [min(len(e["seeds"]) for e in cells), max(len(e["seeds"]) for e in cells)]
                line |= {"better": sum(d["low"] > 0 for d in judged), "worse": sum(d["high"] < 0 for d in judged)}
                line["mean"] = float(np.mean([d["value"] for d in mine]))
                counts.append(line | {"lowest": float(min(d["value"] for d in mine))})
    return counts


def format_markdown(content: dict, kind: str) -> str:
    """Return the table of one learner."""
    lines = [
        "| data, share of 2,000 rows (draws) | random | auto: accuracy | macro-F1 | prototypes: accuracy | macro-F1 |",
        "|---|---|---|---|---|---|",
    ]
    for entry in content["entries"]:
        if entry["learner"] != kind:
            continue
        shown = [f"{entry['arms']['random']['accuracy']:.3f}, {entry['arms']['random']['macro_f1']:.3f}"]
        for method in METHODS[1:]:
            for metric in ("accuracy", "macro_f1"):
                d = entry["arms"][method][f"{metric}_to_random"]
                shown.append(f"{100 * d['value']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]")
        lines.append(f"| {entry['set']}, {entry['share']:.0%} ({len(entry['seeds'])}) | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run cells, summarize what is done, or print the tables."""
    global NAMES, SHARES, RESULT, CELLS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--learner", choices=("lora", "linear"), default="linear")
    parser.add_argument("--hours", type=float, default=24.0, help="begin no cell after so long")
    parser.add_argument("--summary", action="store_true", help="write the result of the cells that are there")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--others", action="store_true", help="the data sets that `auto` was not built on")
    options = parser.parse_args()
    if options.others:
        NAMES, SHARES = OTHERS, SHARES[1:]
        RESULT, CELLS = (path.with_name(path.name.replace("auto", "auto_others")) for path in (RESULT, CELLS))
    if options.markdown:
        content = json.loads(RESULT.read_text())
        for kind in ("lora", "linear"):
            print(f"\n{kind}\n\n{format_markdown(content, kind)}")
        print(*(json.dumps(line) for line in content["counts"]), sep="\n")
        return
    if not options.summary:
        run(options)
    cells = read_cells(options.work)
    keep_cells(cells)
    RESULT.write_text(json.dumps(summarize(cells), indent=1) + "\n")


if __name__ == "__main__":
    main()
