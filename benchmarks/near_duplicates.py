"""Near-duplicates in a million short rows: time and memory of the rule and of datasketch.

    OMP_NUM_THREADS=1 python benchmarks/near_duplicates.py [--rows 1000000] [--peer-rows 20000]

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
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

RESULT = Path(__file__).parent / "results" / "near_duplicates.json"
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
    options = parser.parse_args()
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
