"""Does a choice of rows that helps a small model help the next larger one, on three models?

    python benchmarks/ladder.py --data FOLDER --work FOLDER

Labels: Banking77, ten intents, 400 rows to choose from, 100 test rows, 40 chosen, 15 steps of 16, 2
seeds; the language model `tiny` (2.6 million parameters), MiniLM (22 million) and
SmolLM2-135M-Instruct, each with LoRA. Instructions: 120 GSM8K questions to choose from, 16 test
rows, 24 chosen, 8 steps of 2, 2 seeds; `tiny` and SmolLM2, with two methods that read the model
that is trained, so that the order of rows can be compared. Cells are kept, so a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

LABELS = ("facility-location", "k-center", "herding", "prototypes")
READERS = ("perplexity", "difficulty", "facility-location")


def read_intents(data: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return rows to choose from, and test rows, of ten intents drawn with seed 0."""
    rng = np.random.default_rng(0)
    parts = []
    intents: list[str] = []
    for part, n in (("train", 400), ("test", 100)):
        table = pl.read_csv(data / "banking77" / f"{part}.csv").rename({"category": "label"}).select("text", "label")
        intents = intents or [str(each) for each in rng.permutation(sorted(table["label"].unique()))[:10]]
        rows = table.filter(pl.col("label").is_in(intents)).to_dicts()
        parts.append([rows[i] for i in rng.permutation(len(rows))[:n]])
    return parts[0], parts[1]


def read_questions(data: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return questions with answers to choose from, and test rows."""
    rng = np.random.default_rng(0)
    parts = []
    for part, n in (("train", 120), ("test", 16)):
        lines = (data / "gsm8k" / f"{part}.jsonl").read_text().splitlines()
        rows = [json.loads(lines[i]) for i in rng.permutation(len(lines))[:n]]
        parts.append([{"prompt": row["question"], "completion": row["answer"]} for row in rows])
    return parts[0], parts[1]


def climb(name: str, data: Path, work: Path) -> dict[str, Any]:
    """Compare the methods on each model, and return what the command says."""
    import thresher as th

    is_labels = name == "labels"
    pool, test = read_intents(data) if is_labels else read_questions(data)
    steps, batch = (15, 16) if is_labels else (8, 2)
    began = time.perf_counter()
    found = th.transfer(
        pool,
        eval=test,
        models=["tiny", "minilm", "smollm2"] if is_labels else ["tiny", "smollm2"],
        methods=list(LABELS if is_labels else READERS),
        budget=40 if is_labels else 24,
        seeds=2,
        encoder="static",
        settings=th.TrainSettings(max_steps=steps, batch_size=batch, max_length=256, eval_generations=0),
        workers=1,
        out=work / name,
        on_progress=lambda each: print(name, each.stage, each.done, each.total, each.note or "", flush=True),
    )
    content = found.content
    kept = ("answer", "metric", "models", "methods", "steps", "rows", "spread")
    return {**{key: content[key] for key in kept}, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Run each ladder that is not in the result file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ladder.json"))
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for name in ("labels", "instructions"):
        if name not in results:
            results[name] = climb(name, options.data, options.work)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    for name, found in results.items():
        print(name, found["answer"])
        for each in found["methods"]:
            print(" ", each["method"], each["sentence"])
        for step in found["steps"]:
            print(" ", step)
        for line in found["rows"]:
            print(" ", line)


if __name__ == "__main__":
    main()
