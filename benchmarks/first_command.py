"""What the first commands cost where no loop is compiled yet, as after `pip install`, and later.

    python benchmarks/first_command.py

Each command runs on 1,000 CSV rows of the embedded data set as a process of its own, with an empty
feature cache: first with an empty folder of compiled loops (NUMBA_CACHE_DIR), then again with what
that run has compiled. Processor seconds, medians of --repeats; beside `random`, a script of polars
that reads the same rows, samples a tenth and writes it, in turns.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

ROOT = Path(__file__).parent.parent
N_ROWS = 1000
CHOICE = ["--encoder", "static", "--budget", "10%"]
COMMANDS = {
    "random": ["select", "pool.csv", "--method", "random", "--budget", "10%"],
    "k-center": ["select", "pool.csv", "--method", "k-center", *CHOICE],
    "facility-location": ["select", "pool.csv", "--method", "facility-location", *CHOICE],
    "auto": ["select", "pool.csv", *CHOICE],
    "curate clean": ["curate", "clean", "pool.csv"],
}
POLARS = 'import polars as pl\npl.read_csv("pool.csv").sample(fraction=0.1, seed=0).write_csv("sample.csv")\n'
RESULT = Path(__file__).parent / "results/first_command.json"


def write_pool(path: Path) -> None:
    """Write text and label of the first rows as CSV."""
    with open(ROOT / "data/products/train.jsonl") as lines, path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for _, line in zip(range(N_ROWS), lines, strict=False):
            row = json.loads(line)
            table.writerow([row["text"], row["label"]])


def run(words: list[str], folder: Path) -> dict[str, float]:
    """Run one command, or the script of polars; returns wall-clock and processor seconds."""
    for name in ("out", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    environment = {**os.environ, "THRESHER_CACHE": str(folder / "cache"), "NUMBA_CACHE_DIR": str(folder / "loops")}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *(["-m", "thresher", *words, "--out", "out"] if words else ["-c", POLARS])]
    subprocess.run(command, check=True, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu}


def main() -> None:
    """Run each command fresh and again, and write medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    medians: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pool(folder / "pool.csv")
        for name in given.commands:
            words = COMMANDS[name]
            kinds = ["fresh", "again", *(["polars"] if name == "random" else [])]
            runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
            for _ in range(given.repeats):
                shutil.rmtree(folder / "loops", ignore_errors=True)
                for kind in kinds:
                    runs[kind].append(run([] if kind == "polars" else words, folder))
            medians[name] = {
                kind: {key: round(statistics.median(one[key] for one in each), 2) for key in each[0]}
                for kind, each in runs.items()
            }
            print(name, medians[name], flush=True)
    content = {
        "command": " ".join(["python", "benchmarks/first_command.py", *sys.argv[1:]]),
        "rows": N_ROWS,
        "repeats": given.repeats,
        "medians": medians,
        "machine": machine("polars", "numba"),
    }
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
