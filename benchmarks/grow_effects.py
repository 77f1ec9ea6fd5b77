"""Does `grow --how own` lower forgetting, and does `--how failures` raise the failing slice?

    python benchmarks/grow_effects.py --work DIR [--part own|failures]   # resumable; writes results

SmolLM2-135M-Instruct and the embedded instructions (data/instructions), two seeds a side, all sides
with the same steps. Both are cases in which the effect should show.

own: 32 rows of three tasks with a number as the answer, so that the model often finds a right
answer of its own in place of the row's terse one. It is trained on the rows' answers or on those
of `grow --how own`, with a large learning rate. Compared, by row and seed: bits per byte of 60
embedded general texts after training.

failures: 10 rows of each of four tasks; the model fails on convert-unit. A teacher behind a server
on loopback writes four right conversions for each failed one. Training without and with them is
compared on 40 conversions of other numbers, by loss and by right numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine
from stub_server import start_server

import thresher as th
from thresher.checks import create_check
from thresher.evaluation.effect import estimate_effect
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train
from thresher.trainer.untouched.settings import EMBEDDED

HERE = Path(__file__).parent
POOL = HERE.parent / "data/instructions/pool.jsonl"
RESULT = HERE / "results/grow_effects.json"
SEEDS = (0, 1)
COLUMNS = ("instruction", "input", "output")
OWN_TASKS, N_OWN, N_OWN_TEST, N_GENERAL = ("convert-unit", "solve-sum", "tell-opening-hours"), 32, 24, 60
SLICE, OTHERS, N_EACH, N_TEST = "convert-unit", ("solve-sum", "write-date", "sort-words"), 10, 40
UNITS = {
    ("hours", "minutes"): 60,
    ("minutes", "seconds"): 60,
    ("weeks", "days"): 7,
    ("kilometers", "meters"): 1000,
    ("meters", "centimeters"): 100,
    ("liters", "milliliters"): 1000,
}


def read(*tasks: str) -> pl.DataFrame:
    """Return the rows of some tasks, shuffled once."""
    rows = pl.read_ndjson(POOL).filter(pl.col("task").is_in(tasks))
    return rows.sample(fraction=1.0, shuffle=True, seed=0)


def write_rows(rows: pl.DataFrame | list[dict], path: Path) -> Path:
    """Write the columns of instructions as JSON lines, and return where."""
    table = pl.DataFrame(rows) if isinstance(rows, list) else rows
    table.select(name for name in table.columns if name in (*COLUMNS, "text")).write_ndjson(path)
    return path


def convert(n: int, pair: tuple[str, str]) -> dict[str, str]:
    """Return a row of the task convert-unit, in the form of the embedded ones."""
    source, target = pair
    asked = f"Convert {n} {source} to {target}."
    return {"instruction": asked, "input": "", "output": f"{n} {source} are {n * UNITS[pair]:,} {target}."}


def say(body: dict) -> str:
    """Return what the teacher says: a new conversion of a number above 60, or the answer to one."""
    text = body["messages"][-1]["content"]
    found = re.search(r"Convert ([\d,]+) (\w+) to (\w+)\.", text)
    if found is None:
        return "I only convert units."
    pair = (found[2], found[3])
    if "<question>" not in text:
        return convert(int(found[1].replace(",", "")), pair)["output"]
    row = convert(61 + int(np.random.default_rng([body["seed"], int(found[1])]).integers(400)), pair)
    return f"Question: {row['instruction']}\nAnswer: {row['output']}"


def train_side(rows: Path, test: Path, out: Path, seed: int, settings: TrainSettings, **untouched: object) -> Path:
    """Train on some rows, and return the folder; a finished one is read back."""
    train(th.load(rows), model="smollm2", eval=th.load(test), control="none", seed=seed, settings=settings, out=out,
          base="none", **untouched)  # fmt: skip
    return out


def grade(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss per token of each test row, and whether its answer has the right number."""
    outcomes = pl.read_parquet(folder / "predictions.parquet").sort("row_id")
    check = create_check("number")
    answers = outcomes.drop_nulls("prediction").select("prediction", "response").rows()
    right = np.array([check.is_right(answer, reference) for answer, reference in answers], dtype=float)
    return (outcomes["loss"] / outcomes["n_tokens"]).to_numpy(), right


def measure_own(work: Path) -> dict:
    """Compare forgetting after the rows' own answers and after those of `grow --how own`."""
    settings = TrainSettings(max_steps=16, batch_size=8, max_length=256, learning_rate=1e-3, eval_generations=0)
    rows = read(*OWN_TASKS)
    gold = write_rows(rows.head(N_OWN), work / "gold.jsonl")
    test = write_rows(rows.tail(N_OWN_TEST), work / "test.jsonl")
    grown = th.grow(
        str(gold), how="own", model="smollm2", check="number", max_new_tokens=64, encoder="static", out=work / "own"
    )
    own = write_rows(list(grown.rows), work / "own.jsonl")
    general = work / "general.jsonl"
    general.write_text("".join(line + "\n" for line in EMBEDDED[0].read_text().splitlines()[:N_GENERAL]))
    after, task = {}, {}
    for name, path in (("gold", gold), ("own", own)):
        folders = [train_side(path, test, work / f"{name}-{s}", s, settings, general=str(general)) for s in SEEDS]
        tables = [pl.read_parquet(folder / "predictions_general.parquet").sort("row_id") for folder in folders]
        after[name] = np.stack([table["bits_after"].to_numpy() for table in tables])
        before = tables[0]["bits_before"].to_numpy()
        task[name] = np.stack([grade(folder)[0] for folder in folders])
    return {
        "answers": grown.manifest.content["counts"]["answer_from"],
        "refused": grown.manifest.content["counts"]["refused_by_reason"],
        "forgetting": {name: round(float((values - before).mean()), 5) for name, values in after.items()},
        "difference": describe(estimate_effect(after["own"], after["gold"], is_higher_better=False)),
        "loss": {name: round(float(values.mean()), 4) for name, values in task.items()},
        "rows": N_OWN,
        "general_rows": len(before),
        "test_rows": N_OWN_TEST,
        "seeds": len(SEEDS),
    }


def measure_failures(work: Path) -> dict:
    """Compare the failing slice after training without and with the rows that were grown for it."""
    settings = TrainSettings(max_steps=20, batch_size=8, max_length=256, eval_generations=2 * N_TEST, max_new_tokens=32)
    parts = {task: read(task) for task in (SLICE, *OTHERS)}
    seeds = pl.concat([part.head(N_EACH) for part in parts.values()])
    pairs = list(UNITS)
    # of numbers that no row of the pool has
    conversions = [convert(41 + k // 2, pairs[k % len(pairs)]) for k in range(N_TEST)]
    seed_rows = write_rows(seeds, work / "seeds.jsonl")
    test = write_rows(conversions, work / "slice-test.jsonl")
    asked = write_rows(parts[SLICE].head(N_EACH), work / "slice.jsonl")
    # a fixed port: the address is part of the identity of the grown rows
    server, teacher = start_server("teacher", say, port=47_613), "http://127.0.0.1:47613/v1#teacher"
    grown = th.grow(
        str(asked), how="failures", check="number", model="smollm2", teacher=teacher, per_seed=4,
        max_new_tokens=128, encoder="static", eval=str(test), out=work / "failures",
    )  # fmt: skip
    server.shutdown()
    more = [{name: row[name] for name in COLUMNS} for row in grown.rows]
    both = write_rows([*seeds.select(COLUMNS).to_dicts(), *more], work / "seeds-grown.jsonl")
    losses, right = {}, {}
    for name, path in (("without", seed_rows), ("with", both)):
        folders = [train_side(path, test, work / f"slice-{name}-{s}", s, settings, general="none") for s in SEEDS]
        losses[name], right[name] = (np.stack(each) for each in zip(*(grade(f) for f in folders), strict=True))
    return {
        "facts": grown.manifest.content["facts"],
        "grown": len(more),
        "refused": grown.manifest.content["counts"]["refused_by_reason"],
        "loss": {name: round(float(values.mean()), 4) for name, values in losses.items()},
        "loss_difference": describe(estimate_effect(losses["with"], losses["without"], is_higher_better=False)),
        "right": {name: round(float(values.mean()), 4) for name, values in right.items()},
        "right_difference": describe(estimate_effect(right["with"], right["without"], is_higher_better=True)),
        "test_rows": losses["with"].shape[1],
        "rows": len(seeds),
        "seeds": len(SEEDS),
    }


def describe(effect: object) -> dict:
    """Return an effect in JSON values."""
    return {name: round(float(getattr(effect, name)), 5) for name in ("value", "low", "high")}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", choices=("own", "failures"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("THRESHER_CACHE", str(given.work / "cache"))
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name, measure in (("own", measure_own), ("failures", measure_failures)):
        if given.part in (None, name):
            result[name] = {"machine": machine(), **measure(given.work)}
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
            print(name, json.dumps(result[name]), flush=True)


if __name__ == "__main__":
    main()
