"""Thirty nights of a growing pool, killed at random: the same end as undisturbed, and what it cost.

    python benchmarks/nightly.py --data pool.jsonl.gz [--nights 30] [--total 5000] [--out FILE.json]

The rows are shuffled once and delivered in slices. Two jobs get the same slices: one runs
undisturbed; of the other each run is killed (SIGKILL) with probability 0.3 at a moment drawn
uniformly from the run's expected time, and started again. Reported: whether the two final snapshots
are equal byte for byte, without the section `run` of their manifests; the time of the killed job
over that of the undisturbed one; and the hidden quality of a core-set that never saw the whole
pool: its facility-location value over all rows that pass the rules, against greedy selection from
all of them at once and against uniform samples.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

KILL_SHARE = 0.3
JOB = """name = "nightly"
[[sources]]
files = ["slices/*.jsonl"]
[[steps]]
rule = "exact-duplicates"
[[steps]]
rule = "near-duplicates"
[select]
total = {total}
[features]
encoder = "static"
[output]
folder = "pool"
keep = 3
"""


def read_lines(path: Path) -> list[bytes]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        return file.read().splitlines(keepends=True)


def slices(lines: list[bytes], n: int, n_rows: int | None, seed: int) -> list[bytes]:
    order = np.random.default_rng(seed).permutation(len(lines))[:n_rows]
    return [b"".join(lines[at] for at in part) for part in np.array_split(order, n)]


def read_snapshot(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a snapshot, but for the section `run` of its manifest."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "manifest.json":
                data = json.dumps({key: value for key, value in json.loads(data).items() if key != "run"}).encode()
            files[str(path.relative_to(folder))] = data
    return files


class Night:
    """One job in a folder of its own, with a cache of its own."""

    def __init__(self, root: Path, total: int) -> None:
        self.root = root
        (root / "slices").mkdir(parents=True)
        (root / "job.toml").write_text(JOB.format(total=total))
        self.environment = {**os.environ, "THRESHER_CACHE": str(root / "cache")}

    def start(self) -> subprocess.Popen[bytes]:
        """Start a run."""
        command = [sys.executable, "-m", "thresher", "curate", "run", str(self.root / "job.toml"), "--quiet"]
        return subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE)

    def run(self) -> tuple[float, int]:
        """Run to the end; return seconds and exit code."""
        began = time.monotonic()
        process = self.start()
        _, errors = process.communicate()
        if process.returncode not in (0, 3):
            raise SystemExit(errors.decode())
        return time.monotonic() - began, process.returncode

    def killed(self, after_s: float) -> float:
        """Run, and kill it after so many seconds; return the seconds spent."""
        began = time.monotonic()
        process = self.start()
        try:
            process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return time.monotonic() - began


def hidden_quality(night: Night, total: int) -> dict[str, float]:
    """Return the objective of core set, greedy from everything, and uniform samples."""
    import polars as pl

    from thresher.dataset import load
    from thresher.features import compute, make_context
    from thresher.jobs.update.core_set import build_core_set, compute_objective

    pool = load(str(night.root / "slices" / "*.jsonl"))
    latest = night.root / "pool" / "latest"
    snapshot_ids = set(pl.read_parquet(sorted((latest / "data").glob("*.parquet")))["thresher_row_id"])
    from thresher.curation.pipeline import apply_rules
    from thresher.jobs.job_file import read_job

    passed = apply_rules(pool, read_job(night.root / "job.toml").rules).kept
    rows = pool.take(passed)
    os.environ["THRESHER_CACHE"] = str(night.root / "cache")
    x = compute(rows, {"embedding"}, make_context(encoder="static"))["embedding"]
    ids = rows.frame["row_id"].str.slice(0, 32).to_list()
    ours = np.array([at for at, row_id in enumerate(ids) if row_id in snapshot_ids])
    rng = np.random.default_rng(0)
    began = time.monotonic()
    whole = build_core_set(x, np.ones(len(x), np.int64), total, rng).kept
    seconds = time.monotonic() - began
    uniform = [compute_objective(x, np.sort(rng.choice(len(x), total, replace=False))) for _ in range(5)]
    values = {
        "nightly": compute_objective(x, ours),
        "at_once": compute_objective(x, whole),
        "uniform": float(np.mean(uniform)),
    }
    gained = (values["nightly"] - values["uniform"]) / (values["at_once"] - values["uniform"])
    return {
        "rows_passed": len(x),
        "rows_of_the_core_set_among_them": len(ours),
        **{f"objective_{name}": round(value, 5) for name, value in values.items()},
        "uniform_sd": round(float(np.std(uniform, ddof=1)), 5),
        "share_of_the_gain_over_uniform": round(gained, 4),
        "ratio_to_at_once": round(values["nightly"] / values["at_once"], 5),
        "selection_at_once_s": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--rows", type=int, help="use only so many rows")
    parser.add_argument("--total", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    parts = slices(read_lines(arguments.data), arguments.nights, arguments.rows, arguments.seed)
    root = Path(tempfile.mkdtemp(prefix="thresher-nightly-"))
    calm, wild = Night(root / "calm", arguments.total), Night(root / "wild", arguments.total)
    calm_s, wild_s, n_kills, codes = [], [], 0, []
    for number, part in enumerate(parts):
        for night in (calm, wild):
            (night.root / "slices" / f"{number:02d}.jsonl").write_bytes(part)
        seconds, _ = calm.run()
        calm_s.append(seconds)
        spent = 0.0
        while rng.random() < KILL_SHARE:
            spent += wild.killed(rng.uniform(0, seconds))
            n_kills += 1
        again, code = wild.run()
        codes.append(code)
        wild_s.append(spent + again)
        print(
            f"night {number + 1}: {seconds:.1f} s undisturbed, {wild_s[-1]:.1f} s with kills, exit {code}", flush=True
        )
    is_equal = read_snapshot(calm.root / "pool" / "latest") == read_snapshot(wild.root / "pool" / "latest")
    result = {
        "rows": sum(part.count(b"\n") for part in parts),
        "nights": arguments.nights,
        "total": arguments.total,
        "kills": n_kills,
        "final_snapshots_are_equal": is_equal,
        "undisturbed_s": round(sum(calm_s), 1),
        "killed_s": round(sum(wild_s), 1),
        "ratio": round(sum(wild_s) / sum(calm_s), 3),
        "first_night_s": round(calm_s[0], 1),
        "last_night_s": round(calm_s[-1], 1),
        "exit_codes": sorted(set(codes)),
        **hidden_quality(calm, arguments.total),
    }
    print(json.dumps(result, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(root)
    if not is_equal:
        raise SystemExit("the final snapshots differ")


if __name__ == "__main__":
    main()
