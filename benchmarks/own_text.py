"""Seconds and memory of finding what texts say of their own, by number of texts.

    python benchmarks/own_text.py --data t0_pool.jsonl[.gz]             # 10,000 to 1,000,000 texts
    python benchmarks/own_text.py --data t0_pool.jsonl.gz --rows 100000

Texts are the prompts of a file (a sample of P3: hundreds of templates, questions over shared
passages), repeated, each time with one word in ten replaced by another word of the file. Each
number of texts runs in a process of its own. Measured are wall and processor seconds and the
process's highest resident memory, with and without the texts themselves (Linux only).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from machine import machine

ROWS = (10_000, 100_000, 1_000_000)
SHARE_NOISE = 0.1
RESULT = Path(__file__).parent / "results" / "own_text.json"


def build_texts(path: Path, n: int) -> list[str]:
    """Return n prompts of a file, again and again, each time with other noise."""
    rng = random.Random(7)
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        prompts = [json.loads(line)["prompt"] for line in file]
    vocabulary = list(dict.fromkeys(word for text in prompts for word in re.findall(r"[a-z]{3,12}", text)))
    pieces = [re.split(r"(\s+)", text) for text in prompts]  # with the spaces between words
    texts = []
    for _ in range(n):
        row = list(rng.choice(pieces))
        for at in rng.sample(range(0, len(row), 2), int(SHARE_NOISE * len(row) / 2)):
            row[at] = rng.choice(vocabulary)
        texts.append("".join(row))
    return texts


def measure(path: Path, n: int) -> dict[str, object]:
    """Run in this process."""
    import polars as pl

    from thresher.dataset.own_text.own_text import find_own_texts

    texts = pl.Series("text", build_texts(path, n))
    find_own_texts([texts.head(100)])  # compiles the kernels, or loads them
    before = _read_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    began, cpu = time.perf_counter(), _read_cpu_seconds()
    (own,) = find_own_texts([texts])
    seconds, cpu = time.perf_counter() - began, _read_cpu_seconds() - cpu
    peak = _read_memory("VmHWM")
    return {
        "texts": n,
        "mb_of_text": round(texts.str.len_bytes().sum() / 1e6),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": round(peak),
        "peak_mb_beyond_the_texts": round(peak - before),
        "texts_with_a_wrapper": int(own.has_wrapper.sum()),
        "mb_left_out": round(own.rest.str.len_bytes().sum() / 1e6),
    }


def _read_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _read_memory(name: str) -> float:
    """Return a memory count of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.data, arguments.rows[0])))
        return
    runs = []
    for n in arguments.rows or ROWS:
        command = [sys.executable, __file__, "--child", "--data", str(arguments.data), "--rows", str(n)]
        runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        print(runs[-1], flush=True)
    RESULT.write_text(json.dumps({"machine": machine("polars", "numba"), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
