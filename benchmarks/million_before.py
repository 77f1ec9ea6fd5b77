"""Two commits on one machine, one after the other: a million rows from the file to the subset.

    python benchmarks/million_before.py                              # generated rows
    python benchmarks/million_before.py --data t0_pool.jsonl.gz      # rows of a file, with noise
    python benchmarks/million_before.py --rows 50000 --before b1f5a4e

The earlier commit is checked out into a temporary folder and runs its own `million.py`, in the same
environment and on the same file of rows; then this one runs with --second: another budget and
another method after the first choice. Each starts with an empty cache and compiled kernels, as a
first run on 40,000 rows goes before each. Ratios are of the seconds of whole processes.

The default commit is the last one before neighbor graphs and rankings were kept in the cache, and
before anything else was done about time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

ROOT = Path(__file__).parent.parent
BEFORE = "b1f5a4e"
N_WARM = 40_000  # rows of the run that compiles: so many are compared by inverted lists


def run_million(tree: Path, pools: Path, out: Path, rows: list[int], data: Path | None, more: list[str]) -> dict:
    """Run `million.py` of a tree; returns what it wrote."""
    command = [sys.executable, str(tree / "benchmarks/million.py"), "--pools", str(pools), "--out", str(out)]
    command += ["--rows", *map(str, rows), *more, *([] if data is None else ["--data", str(data.resolve())])]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, cwd=tree)
    return json.loads(out.read_bytes())["results"][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="JSONL file whose rows are repeated with noise")
    parser.add_argument("--before", default=BEFORE, help="the earlier commit")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name = "generated" if options.data is None else options.data.name.split(".")[0]
    result: dict[str, object] = {"rows": options.rows, "pool": name}
    with tempfile.TemporaryDirectory() as temporary:
        folder, pools = Path(temporary), Path(temporary) / "pools"
        earlier = folder / "before"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(earlier)], check=True)
        subprocess.run(["git", "checkout", "-q", options.before], check=True, cwd=earlier)
        for which, tree, more in (("before", earlier, []), ("now", ROOT, ["--second"])):
            run_million(tree, pools, folder / "warm.json", [N_WARM], options.data, more)
            began = time.perf_counter()
            result[which] = run_million(tree, pools, folder / f"{which}.json", [options.rows], options.data, more)
            print(which, round(time.perf_counter() - began), "s with the rows made, if they were not there", flush=True)
            print(json.dumps(result[which], indent=1), flush=True)
    before, now = result["before"]["seconds"], result["now"]["seconds"]
    commits = [
        subprocess.run(
            ["git", "rev-parse", "--short", name], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in (options.before, "HEAD")
    ]
    ratios = {"first choice, now to before": round(now / before, 3)}
    for second in ("second budget", "second method"):
        seconds = result["now"][second]["seconds"]
        ratios |= {f"{second}, to first choice before": round(seconds / before, 3)}
        ratios |= {f"{second}, to first choice now": round(seconds / now, 3)}
    content = {
        "command": "python benchmarks/million_before.py " + " ".join(sys.argv[1:]),
        "commits": commits,
        "ratios": ratios,
        **result,
        "machine": machine("polars", "pyarrow", "faiss-cpu", "numba", "tokenizers"),
    }
    out = options.out or ROOT / f"benchmarks/results/million_before-{name}.json"
    out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(ratios, indent=1))


if __name__ == "__main__":
    main()
