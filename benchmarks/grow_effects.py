"""Does `grow --how own` lower forgetting, and does `--how failures` raise the failing slice?

    python benchmarks/grow_effects.py --work DIR [--part own|failures]   # resumable; writes results

SmolLM2-135M-Instruct on the embedded instructions (data/instructions). own: it is trained on 48
rows with their own answers, and on the same rows with the answers of `grow --how own`; the loss on
48 of the embedded general rows, in bits per byte, is compared, paired by row and seed. failures:
the model fails on questions of one task (convert-unit); SmolLM2 itself writes new rows for them;
training on 32 rows of that task without and with the grown ones, with equal steps, is compared by
the loss on test rows of that task. Two seeds each: small, so that a CPU does it in minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

import thresher as th
from thresher.evaluation.effect import estimate_effect
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train
from thresher.trainer.untouched.settings import EMBEDDED

HERE = Path(__file__).parent
POOL = HERE.parent / "data/instructions"
RESULT = HERE / "results/grow_effects.json"
SEEDS, N_OWN, N_GENERAL, N_SLICE, N_TEST = (0, 1), 48, 48, 32, 40
TASK = "convert-unit"
SETTINGS = TrainSettings(max_steps=16, batch_size=8, max_length=256, eval_generations=0)


def read(name: str) -> pl.DataFrame:
    """Return rows of the embedded instructions, shuffled once."""
    rows = pl.read_ndjson(POOL / f"{name}.jsonl")
    return rows.sample(fraction=1.0, shuffle=True, seed=0)


def write_rows(rows: list[dict] | pl.DataFrame, path: Path) -> Path:
    """Write JSON lines, and return where."""
    (pl.DataFrame(rows) if isinstance(rows, list) else rows).write_ndjson(path)
    return path


def list_general(work: Path) -> Path:
    """Return a file of the first general rows."""
    rows = [json.loads(line) for line in EMBEDDED[0].read_text().splitlines()[:N_GENERAL]]
    return write_rows(rows, work / "general.jsonl")


def train_side(rows: Path, test: Path, out: Path, seed: int, **untouched: object) -> Path:
    """Train on some rows, and return the folder."""
    train(th.load(rows), model="smollm2", eval=th.load(test), control="none", seed=seed, settings=SETTINGS, out=out,
          base="none", **untouched)  # fmt: skip
    return out


def measure_own(work: Path) -> dict:
    """Compare forgetting after the rows' own answers and after those of `grow --how own`."""
    rows = read("pool").filter(pl.col("output").str.len_chars() < 120).head(N_OWN).drop("task")
    gold = write_rows(rows, work / "gold.jsonl")
    test = write_rows(
        read("test").filter(pl.col("output").str.len_chars() < 120).head(N_TEST).drop("task"), work / "test.jsonl"
    )
    grown = th.grow(str(gold), how="own", model="smollm2", max_new_tokens=48, encoder="static", out=work / "own")
    columns = ("instruction", "input", "output")
    own = write_rows([{name: row[name] for name in columns} for row in grown.rows], work / "own.jsonl")
    general = list_general(work)
    sides = {}
    for name, path in (("gold", gold), ("own", own)):
        folders = [train_side(path, test, work / f"{name}-{seed}", seed, general=str(general)) for seed in SEEDS]
        tables = [pl.read_parquet(folder / "predictions_general.parquet").sort("row_id") for folder in folders]
        losses = [pl.read_parquet(folder / "predictions.parquet").sort("row_id")["loss"] for folder in folders]
        sides[name] = {"general": tables, "task": losses}
    after = {
        name: np.stack([table["bits_after"].to_numpy() for table in side["general"]]) for name, side in sides.items()
    }
    before = sides["gold"]["general"][0]["bits_before"].to_numpy()
    task = {name: np.stack([loss.to_numpy() for loss in side["task"]]) for name, side in sides.items()}
    return {
        "answers": grown.manifest.content["counts"]["answer_from"],
        "refused": grown.manifest.content["counts"]["refused_by_reason"],
        "forgetting": {name: round(float((values - before).mean()), 5) for name, values in after.items()},
        "difference": describe(estimate_effect(after["own"], after["gold"], is_higher_better=False)),
        "task_loss": {name: round(float(values.mean()), 4) for name, values in task.items()},
        "rows": len(rows),
        "general_rows": len(before),
        "seeds": len(SEEDS),
    }


def measure_failures(work: Path) -> dict:
    """Compare the failing slice after training without and with the rows that were grown for it."""
    rows = read("pool").filter(pl.col("task") == TASK).head(N_SLICE).drop("task")
    test = write_rows(read("test").filter(pl.col("task") == TASK).head(N_TEST).drop("task"), work / "slice-test.jsonl")
    seed_rows = write_rows(rows, work / "slice.jsonl")
    grown = th.grow(str(seed_rows), how="failures", check="number", model="smollm2", max_new_tokens=64,
                    encoder="static", eval=str(test), out=work / "failures")  # fmt: skip
    columns = ("instruction", "input", "output")
    more = [{name: row[name] for name in columns} for row in grown.rows]
    both = write_rows([*rows.to_dicts(), *more], work / "slice-grown.jsonl")
    losses = {}
    for name, path in (("without", seed_rows), ("with", both)):
        folders = [train_side(path, test, work / f"slice-{name}-{seed}", seed, general="none") for seed in SEEDS]
        losses[name] = np.stack([pl.read_parquet(f / "predictions.parquet").sort("row_id")["loss"] for f in folders])
    return {
        "failed": grown.manifest.content["facts"],
        "grown": len(more),
        "refused": grown.manifest.content["counts"]["refused_by_reason"],
        "loss": {name: round(float(values.mean()), 4) for name, values in losses.items()},
        "difference": describe(estimate_effect(losses["with"], losses["without"], is_higher_better=False)),
        "rows": len(rows),
        "test_rows": losses["with"].shape[1],
        "seeds": len(SEEDS),
    }


def describe(effect: object) -> dict:
    """Return an effect in JSON values; below zero, the grown side loses less."""
    return {name: round(float(getattr(effect, name)), 5) for name in ("value", "low", "high")}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", choices=("own", "failures"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name, measure in (("own", measure_own), ("failures", measure_failures)):
        if given.part in (None, name):
            result[name] = {"machine": machine(), **measure(given.work)}
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
            print(name, json.dumps(result[name]), flush=True)


if __name__ == "__main__":
    main()
