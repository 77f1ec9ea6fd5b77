"""What a second budget, or another method, costs after the first choice from the same pool.

    python benchmarks/second_choice.py                                 # a million generated rows
    python benchmarks/second_choice.py --data t0_pool.jsonl.gz         # rows of a file, with noise
    python benchmarks/second_choice.py --rows 100000 --repeats 1

Each choice is a `thresher select` of its own, from the file of rows to the written subset: 5 % by
facility location with an empty cache, then 10 %, then 5 % by saturated coverage. Rows are those of
`million.py` without exact copies, as a cleaned pool has none: facility location compares distinct
rows, so among copies its graph would be another than that of saturated coverage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from million import generated_rows, repeated_rows

CHOICES = {
    "first, 5 %": ["--method", "facility-location", "--budget", "5%"],
    "10 % after it": ["--method", "facility-location", "--budget", "10%"],
    "another method, 5 %": ["--method", "saturated-coverage", "--budget", "5%"],
}
RESULT = Path(__file__).parent / "results/second_choice.json"


def choose(pool: Path, folder: Path, name: str) -> dict[str, float]:
    """Run one choice; returns wall-clock and processor seconds."""
    out = folder / name.replace(" ", "-").replace("%", "percent").replace(",", "")
    command = [sys.executable, "-m", "thresher", "select", str(pool), *CHOICES[name], "--encoder", "static"]
    environment = {**os.environ, "THRESHER_CACHE": str(folder / "cache")}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--out", str(out)], check=True, env=environment, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu}


def main() -> None:
    """Run the choices one after the other, and write medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="JSONL file whose rows are repeated with noise")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CHOICES}
    with tempfile.TemporaryDirectory() as temporary:
        pool = Path(temporary) / "pool.jsonl"
        rows = generated_rows(given.rows) if given.data is None else repeated_rows(given.data, given.rows)
        with pool.open("w") as file:
            file.writelines(dict.fromkeys(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        for repeat in range(given.repeats):
            folder = Path(temporary) / str(repeat)
            folder.mkdir()
            for name in CHOICES:
                runs[name].append(choose(pool, folder, name))
                print(name, runs[name][-1], flush=True)
    medians = {
        name: {key: round(statistics.median(run[key] for run in each), 2) for key in each[0]}
        for name, each in runs.items()
    }
    first = next(iter(medians.values()))
    ratios = {
        name: {key: round(value / first[key], 3) for key, value in each.items()} for name, each in medians.items()
    }
    content = {
        "command": "python benchmarks/second_choice.py " + " ".join(sys.argv[1:]),
        "rows": given.rows,
        "repeats": given.repeats,
        "medians": medians,
        "ratios": ratios,
        "machine": machine("polars", "faiss-cpu", "numba"),
    }
    given.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
