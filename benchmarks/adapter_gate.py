"""The adapter gate of jobs on real rows: is a clean night published, and a poisoned one refused?

    python benchmarks/adapter_gate.py --data FOLDER

Banking77, ten intents, MiniLM, 60 steps, two seeds, 200 test rows. The first night publishes 200
rows. The second adds 100 clean rows, the third 100 rows whose labels are those of the next intent.
For each night: what became of it, and the paired difference of accuracy with its interval.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

RESULT = Path(__file__).parent / "results" / "adapter_gate.json"
N_INTENTS, N_FIRST, N_MORE, N_TEST = 10, 200, 100, 200
JOB = """eval = ["eval.jsonl"]
[[sources]]
files = ["src/*.jsonl"]
[[steps]]
rule = "exact-duplicates"
[features]
encoder = "static"
[output]
folder = "out"
[train]
seeds = 2
settings = {max_steps = 60, batch_size = 16, max_length = 64}
"""


def write_rows(path: Path, rows: pl.DataFrame) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_ndjson(path)


def main() -> None:
    """Run three nights, print each, and write the result."""
    from thresher.jobs.run import run_job

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    sides = [
        pl.read_csv(options.data / "banking77" / f"{part}.csv").rename({"category": "label"})
        for part in ("train", "test")
    ]
    intents = sorted(sides[0]["label"].unique())[:N_INTENTS]
    train, test = (
        side.filter(pl.col("label").is_in(intents)).sample(fraction=1.0, shuffle=True, seed=0) for side in sides
    )
    wrong = dict(zip(intents, np.roll(intents, 1).tolist(), strict=True))
    nights = {
        "first": train[:N_FIRST],
        "clean": train[N_FIRST : N_FIRST + N_MORE],
        "poisoned": train[N_FIRST + N_MORE : N_FIRST + 2 * N_MORE].with_columns(pl.col("label").replace(wrong)),
    }
    results = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["THRESHER_CACHE"] = str(root / "cache")
        (root / "job.toml").write_text(JOB)
        write_rows(root / "eval.jsonl", test[:N_TEST])
        for name, rows in nights.items():
            write_rows(root / "src" / f"{name}.jsonl", rows)
            began = time.perf_counter()
            ran = run_job(root / "job.toml")
            section = ran.report["train"]
            results.append(
                {
                    "night": name,
                    "outcome": ran.outcome,
                    "verdict": section["verdict"],
                    "all_rows": next(iter(section["tests"]), None),
                    "slices": len(section["tests"]) - 1 if section["tests"] else 0,
                    "worse_slices": [each["rows"] for each in section["tests"][1:] if each["is_worse"]],
                    "seconds": round(time.perf_counter() - began, 1),
                }
            )
            print(json.dumps(results[-1]), flush=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
