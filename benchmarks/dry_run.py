"""Is what a dry run foretells within 30 % of what it takes?

    python benchmarks/dry_run.py     # three examples, one worker; minutes
    python benchmarks/dry_run.py --only "training of SmolLM2" --repeats 2

Each example is planned, then run with an empty cache; what choosing the rows took is left out. The
result keeps the examples that are not run again. The load of the machine stands beside the plan and
the run: where another program takes the processor during one of them alone, the ratio is about it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from machine import machine

import thresher as th
from thresher.experiments.design.plans import plan_comparison, plan_curve
from thresher.models.causal_lm.smollm2 import smollm2_folder
from thresher.trainer.estimate import plan_training

PRODUCTS = Path(__file__).parent.parent / "data" / "products"


def build_examples() -> dict[str, tuple]:
    """Return how each example is planned, and how it is run."""
    train, test = (th.load(pl.read_ndjson(PRODUCTS / f"{part}.jsonl")) for part in ("train", "test"))
    pool, held_out = train.take(range(600)), test.take(range(300))
    answers = [
        {"prompt": f"Which category is this product of: {text}", "completion": label}
        for text, label in pool.frame.select("prompt", "response").head(200).iter_rows()
    ]
    language, asked = th.load(answers[:160]), th.load(answers[160:])
    shared = {"eval": held_out, "methods": ["random"], "workers": 1, "overlap": "drop"}
    curve = {**shared, "sizes": [80, 300], "seeds": 2, "grid": True}
    comparison = {**shared, "methods": ["length"], "budget": [100], "seeds": 2}
    model = smollm2_folder()  # in the usual cache, not in one that is deleted after a run
    training = {"model": model, "eval": asked, "settings": th.TrainSettings(max_steps=12, eval_generations=8)}
    return {
        "curve of MiniLM": (lambda: plan_curve(pool, **curve), lambda: th.learning_curve(pool, **curve)),
        "comparison of MiniLM": (lambda: plan_comparison(pool, **comparison), lambda: th.compare(pool, **comparison)),
        "training of SmolLM2": (lambda: plan_training(language, **training), lambda: th.train(language, **training)),
    }


def measure(plan, run) -> dict:
    """Return the seconds that are foretold, and those that it takes."""
    foretold = plan().seconds
    loads = [os.getloadavg()[0]]
    before = os.environ.get("THRESHER_CACHE")
    with TemporaryDirectory() as cache:
        os.environ["THRESHER_CACHE"] = cache
        began = time.perf_counter()
        run()
        seconds = time.perf_counter() - began
    os.environ.pop("THRESHER_CACHE")
    if before is not None:
        os.environ["THRESHER_CACHE"] = before
    loads.append(os.getloadavg()[0])
    line = {"foretold": round(foretold, 1), "measured": round(seconds, 1), "ratio": round(foretold / seconds, 3)}
    line["load"] = [round(load, 1) for load in loads]  # after the plan, after the run
    print(line, flush=True)
    return line


def main() -> None:
    """Run, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "dry_run.json")
    parser.add_argument("--only", help="one of the examples; the others are kept as they are")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    kept = json.loads(options.out.read_text())["examples"] if options.out.is_file() else {}
    for name, (plan, run) in build_examples().items():
        if options.only in (None, name):
            lines = [measure(plan, run) for _ in range(options.repeats)]
            ratios = [line["ratio"] for line in lines]
            kept[name] = lines[0] if len(lines) == 1 else {"ratio": round(sum(ratios) / len(ratios), 3), "runs": lines}
            result = {"command": "python benchmarks/dry_run.py", "machine": machine(), "examples": kept}
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
