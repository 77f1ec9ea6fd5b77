"""Time and peak memory of `thresher select` as a user runs it: a new process, a cold cache.

python benchmarks/scale.py            # 100,000 rows, three runs of each
python benchmarks/scale.py --rows 10000 --runs 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine

COMMANDS = {
    "random": ["--method", "random", "--budget", "10%"],
    "facility-location": ["--method", "facility-location", "--budget", "10%", "--encoder", "static"],
}


def write_rows(path: Path, n: int, seed: int = 0) -> None:
    """Write n alpaca rows of about 60 words, which mix words of one of 500 topics with others."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(20_000)])
    topics = rng.integers(0, len(words), (500, 60))
    with open(path, "w") as file:
        for start in range(0, n, 10_000):
            size = min(10_000, n - start)
            topic = topics[rng.integers(0, 500, size)]
            own = np.take_along_axis(topic, rng.integers(0, 60, (size, 40)), axis=1)
            text = words[np.concatenate([own, rng.integers(0, 2_000, (size, 20))], axis=1)]
            for row in text:
                content = {"instruction": " ".join(row[:15]), "input": "", "output": " ".join(row[15:])}
                file.write(json.dumps(content) + "\n")


def measure(arguments: list[str]) -> tuple[float, float]:
    """Run thresher in a new process; return wall seconds and peak memory in MB."""
    began = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-m", "thresher", *arguments], os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"thresher {' '.join(arguments)} failed with status {status}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scale.json")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool.jsonl"
        write_rows(pool, options.rows)
        for name, arguments in COMMANDS.items():
            runs = []
            for run in range(options.runs):
                os.environ["THRESHER_CACHE"] = f"{folder}/cache-{name}-{run}"
                runs.append(measure(["select", str(pool), *arguments, "--out", f"{folder}/{name}-{run}", "--quiet"]))
            seconds, megabytes = zip(*runs, strict=True)
            results[name] = {
                "arguments": " ".join(arguments),
                "seconds": [round(value, 2) for value in seconds],
                "median_seconds": round(statistics.median(seconds), 2),
                "peak_mb": round(max(megabytes)),
            }
            print(f"{name:<20} {statistics.median(seconds):8.2f} s  {max(megabytes):8.0f} MB  ({options.rows:,} rows)")
        size = pool.stat().st_size
    content = {
        "command": "python benchmarks/scale.py " + " ".join(sys.argv[1:]),
        "rows": options.rows,
        "bytes": size,
        "results": results,
        "machine": machine("polars", "pyarrow", "faiss-cpu", "numba"),
    }
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
