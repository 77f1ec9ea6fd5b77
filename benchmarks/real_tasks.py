"""Three tasks of real rows that several benchmarks share.

Banking77 intents; which attribute a value of a product title is, made from AE-110k; GSM8K answers,
loss per token of the toy `tiny`. Each function returns pool, test rows and options.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

import thresher as th

N_POOL, N_TEST = 1280, 600
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
