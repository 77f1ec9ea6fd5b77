"""Do adapters of several data sets, merged, beat the best single one?

    python benchmarks/soup.py --data FOLDER --work FOLDER

Labels: ten intents of Banking77, MiniLM, three parts of 100 rows in which the intents have
different shares (Dirichlet, .5), 40 steps each, 60 dev and 150 test rows. Instructions: 200 short
rows each of Alpaca, Dolly and GSM8K, the language model `tiny`, 60 steps each; 20 dev and 40 test
rows of each. Each draw draws rows anew. Soups are judged on test rows, paired with the adapter that
is best on the dev rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

Rows = list[dict[str, str]]
WAYS = ("mean", "ties", "dare", "regmean")


def draw_intents(data: Path, draw: int) -> tuple[list[Rows], Rows, Rows]:
    """Return three parts to learn, dev rows and test rows."""
    rng = np.random.default_rng([draw, 1])
    train, test = (
        pl.read_csv(data / "banking77" / f"{part}.csv").rename({"category": "label"}).select("text", "label")
        for part in ("train", "test")
    )
    intents = [str(each) for each in rng.permutation(sorted(test["label"].unique()))[:10]]
    by_intent = {each: rng.permutation(train.filter(pl.col("label") == each)["text"].to_numpy()) for each in intents}
    parts: list[Rows] = [[], [], []]
    for intent, texts in by_intent.items():
        ends = np.round(np.cumsum(rng.dirichlet([0.5] * 3)) * 30).astype(int)
        for part, own in zip(parts, np.split(texts[:30], ends[:2]), strict=True):
            part += [{"text": str(text), "label": intent} for text in own]
    # every part knows every label
    for part in parts:
        known = {row["label"] for row in part}
        part += [{"text": str(by_intent[each][30]), "label": each} for each in intents if each not in known]
    rows = test.filter(pl.col("label").is_in(intents)).to_dicts()
    rows = [rows[i] for i in rng.permutation(len(rows))]
    return parts, rows[:60], rows[60:210]


def draw_questions(data: Path, draw: int) -> tuple[list[Rows], Rows, Rows]:
    """Return the rows of three data sets to learn, and dev and test rows of all."""
    rng = np.random.default_rng([draw, 2])
    parts, dev, test = [], [], []
    for folder, names in (("alpaca_9k", "instruction output"), ("dolly_3k", "instruction output"), ("gsm8k", "")):
        first, second = names.split() if names else ("question", "answer")
        path = next(path for path in sorted((data / folder).iterdir()) if path.suffix in (".jsonl", ".json"))
        if folder == "gsm8k":
            path = data / folder / "train.jsonl"
        text = path.read_text()
        table = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        rows = [
            {"prompt": row[first], "completion": row[second]}
            for row in table
            if not row.get("input") and 0 < len(row[second]) < 300 and len(row[first]) < 300
        ]
        rows = [rows[i] for i in rng.permutation(len(rows))[:260]]
        parts.append(rows[:200])
        dev += rows[200:220]
        test += rows[220:260]
    return parts, dev, test


def run(name: str, data: Path, draw: int, work: Path) -> dict[str, Any]:
    """Train an adapter on each part, or read it in `work`, and return what `soup` finds."""
    import thresher as th

    parts, dev, test = (draw_intents if name == "labels" else draw_questions)(data, draw)
    began = time.perf_counter()
    steps = 40 if name == "labels" else 60
    settings = th.TrainSettings(max_steps=steps, batch_size=16, max_length=256, eval_generations=0)
    model = None if name == "labels" else "tiny"  # None: MiniLM
    adapters = [
        th.train(rows, model=model, settings=settings, base="none", out=work / f"{name}-{draw}-{i}").path
        for i, rows in enumerate(parts)
    ]
    content = th.soup(adapters, dev=dev, eval=test, ways=WAYS, data=tuple(parts)).content
    kept = ("metric", "best_single", "soups", "kept")
    return {
        "name": name,
        "draw": draw,
        "dev": [each["dev"] for each in content["adapters"]],
        **{key: content[key] for key in kept},
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run each draw that is not in the result file yet, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="keeps the adapters")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soup.json"))
    options = parser.parse_args()
    results: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.is_file() else []
    done = {(each["name"], each["draw"]) for each in results}
    for draw in range(options.draws):
        for name in ("labels", "instructions"):
            if (name, draw) not in done:
                results.append(run(name, options.data, draw, options.work))
                options.out.write_text(json.dumps(results, indent=1) + "\n")
    for each in results:
        print(each["name"], each["draw"], each["metric"], "single", round(each["best_single"]["test"], 4))
        for soup in each["soups"]:
            print("  ", soup["way"], soup["members"], soup["verdict"])


if __name__ == "__main__":
    main()
