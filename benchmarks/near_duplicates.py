"""Near-duplicates in a million short rows: time and memory of the rule and of datasketch.

    OMP_NUM_THREADS=1 python benchmarks/near_duplicates.py [--rows 1000000] [--peer-rows 20000]
    OMP_NUM_THREADS=1 python benchmarks/near_duplicates.py --data PATH --rows 200000

Rows are generated: about 25 words drawn by Zipf's law, one row in four a copy of an earlier one
with one or two words changed. Each contestant runs in a process of its own, from the texts in
memory to the list of dropped rows; peak memory is that process's, interpreter and texts included.

- thresher: the rule `near-duplicates` with its defaults (character 5-grams, Jaccard 0.7, 128
  permutations), every candidate verified on the sets.
- datasketch: the loop of its documentation, with the same pieces, threshold and permutations: a
  MinHash per row, `update_batch`, `query`, `insert` if nothing was found. Candidates are not
  verified. It takes `--peer-rows` rows; its time grows in proportion to the rows at best, and the
  time for all rows is reported as such an extrapolation.

Both are measured at `--peer-rows` rows as well, so that one pair of numbers is free of any
extrapolation.

With `--data`, rows are those of JSON lines (prompt, completion; a file or a folder of files), again
and again, each time with one word in ten replaced. Reported are the rule's memory beyond that of
the process with the rows read, by row, what it had planned, and the peak of the process with
reading.
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
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

RESULT = Path(__file__).parent / "results" / "near_duplicates.json"
MEMORY_RESULT = Path(__file__).parent / "results" / "near_duplicates_memory.json"
N_WORDS = 30_000
COPY_SHARE = 0.25
PERMUTATIONS, THRESHOLD, N_GRAM = 128, 0.7, 5


def texts(n: int, seed: int = 0) -> list[str]:
    """Return n short rows; one in four is an earlier one with one or two words changed."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(3, 10, N_WORDS)]
    weight = 1 / np.arange(1, N_WORDS + 1)
    rows = rng.choice(N_WORDS, size=(n, 25), p=weight / weight.sum())
    is_copy = rng.random(n) < COPY_SHARE
    for row in np.flatnonzero(is_copy[1:]) + 1:
        rows[row] = rows[rng.integers(row)]
        for place in rng.integers(25, size=rng.integers(1, 3)):
            rows[row, place] = rng.integers(N_WORDS)
    return [" ".join(words[i] for i in row) for row in rows.tolist()]


def noisy_rows(path: Path, n: int, seed: int = 7) -> list[dict[str, str]]:
    """Return n rows out of files, one word in ten replaced by another word of them."""
    rows = []
    for file in sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]:
        with gzip.open(file, "rt") if file.suffix == ".gz" else open(file) as lines:
            rows += [json.loads(line) for line in lines]
    rng = random.Random(seed)
    vocabulary = list(dict.fromkeys(word for row in rows for word in re.findall(r"[a-z]{3,12}", row["prompt"])))
    made = []
    for _ in range(n):
        row, noisy = rng.choice(rows), {}
        for name in ("prompt", "completion"):
            pieces = re.split(r"(\s+)", row[name])  # with the spaces between words
            for at in rng.sample(range(0, len(pieces), 2), int(0.1 * (len(pieces) // 2))):
                pieces[at] = rng.choice(vocabulary)
            noisy[name] = "".join(pieces)
        made.append(noisy)
    return made


def _read_memory(name: str) -> int:
    """Return a memory count of this process in bytes (Linux only)."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measure_memory(pool_file: Path) -> dict:
    """Run the rule on a file of rows, in this process."""
    import thresher as th
    from thresher.curation.pipeline import apply_rules
    from thresher.curation.rules.near_duplicates import NearDuplicates
    from thresher.features import make_context

    notes: list[str] = []
    context = make_context(cache=None, on_progress=lambda progress: progress.note and notes.append(progress.note))
    warm = th.load(pl.DataFrame([{"prompt": f"a b c {i}", "completion": f"d {i}"} for i in range(100)]))
    apply_rules(warm, [NearDuplicates()], context=context)  # compiles the kernels
    pool = th.load(pool_file)
    reading = _read_memory("VmHWM")
    before = _read_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    started = time.process_time()
    result = apply_rules(pool, [NearDuplicates()], context=context)
    seconds, peak = time.process_time() - started, _read_memory("VmHWM")
    text = pool.frame.select(pl.col("prompt", "response").str.len_bytes().sum()).row(0)
    return {
        "rows": len(pool),
        "bytes_of_text_a_row": round(sum(text) / len(pool)),
        "dropped": result.dropped.height,
        "cpu_seconds": round(seconds, 1),
        "peak_gb": round(max(peak, reading) / 1e9, 2),
        "bytes_a_row_beyond_the_rows": round((peak - before) / len(pool)),
        "plan": notes,
        "notes": dict(result.results[0].notes),
    }


def run_on_file(data: Path, n: int) -> int:
    """Write noisy rows, measure them in a process of its own, and keep the result."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool.jsonl"
        pool.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in noisy_rows(data, n)))
        command = [sys.executable, __file__, "--pool", str(pool)]
        done = json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])
    print(json.dumps(done, indent=1))
    result = json.loads(MEMORY_RESULT.read_text()) if MEMORY_RESULT.exists() else {"runs": []}
    runs = [each for each in result["runs"] if each["rows"] != n]
    content = {
        "machine": machine("rensa", "polars", "numba"),
        "runs": sorted([*runs, done], key=lambda run: run["rows"]),
    }
    MEMORY_RESULT.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def ours(rows: list[str]) -> int:
    import thresher as th
    from thresher.curation.pipeline import apply_rules
    from thresher.curation.rules.near_duplicates import NearDuplicates
    from thresher.features import make_context

    warm = th.load(pl.DataFrame({"text": rows[:100]}))
    apply_rules(warm, [NearDuplicates()], context=make_context(cache=None))  # compiles the kernels
    pool = th.load(pl.DataFrame({"text": rows}))
    started = time.perf_counter()
    result = apply_rules(pool, [NearDuplicates()], context=make_context(cache=None))
    return report(len(rows), result.dropped.height, time.perf_counter() - started, result.results[0].notes)


def datasketch(rows: list[str]) -> int:
    from datasketch import MinHash, MinHashLSH

    started = time.perf_counter()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    dropped = 0
    for number, text in enumerate(rows):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([text[i : i + N_GRAM].encode() for i in range(max(len(text) - N_GRAM + 1, 1))])
        if index.query(signature):
            dropped += 1
        else:
            index.insert(str(number), signature)
    return report(len(rows), dropped, time.perf_counter() - started, {})


def report(n: int, dropped: int, seconds: float, notes: dict) -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    result = {
        "rows": n,
        "dropped": dropped,
        "seconds": round(seconds, 2),
        "peak_gb": round(peak, 2),
        "notes": dict(notes),
    }
    print(json.dumps(result))
    return 0


def run(who: str, n: int) -> dict:
    done = subprocess.run([sys.executable, __file__, "--only", who, "--rows", str(n)], check=True, capture_output=True)
    return {"who": who, **json.loads(done.stdout.splitlines()[-1])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=20_000)
    parser.add_argument("--only", choices=["thresher", "datasketch"])
    parser.add_argument("--data", type=Path, help="JSON lines (prompt, completion) whose rows are repeated with noise")
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pool:
        print(json.dumps(measure_memory(options.pool)))
        return 0
    if options.data:
        return run_on_file(options.data, options.rows)
    if options.only:
        rows = texts(options.rows)
        return ours(rows) if options.only == "thresher" else datasketch(rows)
    runs = [run("thresher", options.peer_rows), run("datasketch", options.peer_rows), run("thresher", options.rows)]
    for each in runs:
        print(
            f"{each['who']:<11} {each['rows']:>9,} rows  {each['seconds']:>8.1f} s  {each['peak_gb']:.2f} GB  "
            f"{each['dropped']:,} dropped"
        )
    extrapolated = runs[1]["seconds"] * options.rows / options.peer_rows
    print(f"datasketch, in proportion, for {options.rows:,} rows: {extrapolated:,.0f} s")
    result = {"machine": machine("rensa", "datasketch", "polars", "numba"), "runs": runs}
    RESULT.write_text(json.dumps(result | {"datasketch_seconds_in_proportion": round(extrapolated)}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
