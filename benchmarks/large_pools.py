"""Time and memory of methods that look at all rows for each pick, on many made-up vectors.

    python benchmarks/large_pools.py [--rows 200000] [--methods herding prototypes graph-cut]

Vectors of 256 numbers lie around 2,000 centers; labels are 20. Each method ranks 5 % in a process
of its own. Memory is what it takes at its peak beyond the vectors (Linux only).
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
from machine import machine

RESULT = Path(__file__).parent / "results/large_pools.json"
METHODS = {"herding": {}, "prototypes": {"doubtful": "ignore"}, "graph-cut": {}}
N_CENTERS, N_LABELS, D = 2_000, 20, 256
SHARE = 0.05


def rank(method: str, n: int) -> dict[str, float]:
    """Rank rows in this process."""
    import polars as pl

    from thresher.features.container import Features
    from thresher.selectors import create

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, D), dtype=np.float32)
    vectors *= 0.5
    centers = rng.standard_normal((N_CENTERS, D), dtype=np.float32)
    for first in range(0, n, 8192):
        block = vectors[first : first + 8192]
        block += centers[rng.integers(N_CENTERS, size=len(block))]
    labels = rng.integers(N_LABELS, size=n)
    ids = pl.Series([f"{i:08d}" for i in range(n)])
    features = Features(row_id=ids, arrays={"embedding": vectors, "column:label": labels})
    selector = create(method, METHODS[method])
    status = Path("/proc/self/status").read_text()
    before = int(status.split("VmRSS:")[1].split()[0]) / 1024
    began = time.process_time()
    scores = selector.score(features, n_ranked=round(SHARE * n), rng=np.random.default_rng(0))
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_seconds": round(seconds, 1), "beyond_mb": round(peak - before), "ranked": scores.n_ranked}


def main() -> None:
    """Rank by each method, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--one", choices=list(METHODS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(rank(options.one, options.rows)))
        return
    content = json.loads(RESULT.read_bytes()) if RESULT.is_file() else {"results": {}}
    for method in options.methods:
        command = [sys.executable, __file__, "--rows", str(options.rows), "--one", method]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        found = {"rows": options.rows, "vectors_mb": options.rows * D * 4 // 10**6, **json.loads(answer.stdout)}
        content["results"][f"{method}, {options.rows}"] = found
        print(method, found, flush=True)
        content |= {
            "command": "python benchmarks/large_pools.py " + " ".join(sys.argv[1:]),
            "machine": machine("numba", "faiss-cpu"),
        }
        RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
