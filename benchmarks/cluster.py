"""Selection on two local Ray nodes: objective, rows per second, and what a lost node costs.

    python benchmarks/cluster.py                       # 20,000 and 50,000 generated rows, 5 %
    python benchmarks/cluster.py --rows 20000 --out result.json
    python benchmarks/cluster.py --rates     # rows per second of one worker, on full shards

For each number of rows: the picks of one machine, of Ray with all rows at once (which must be the
same), and of Ray in partitions. Objectives are computed here over all rows. One more run loses a
node while features are computed: attempts at shards are counted. Results are added to those of
other numbers of rows in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from million import generated_rows, write_rows

RESULTS = Path(__file__).parent / "results"
ROWS_PER_SHARD = 5_000
N_SHARDS = 8  # at least


def write_pool(folder: Path, n: int, size: int | None = None) -> int:
    """Write n rows, one in twenty a copy of an earlier one, to files; return how many files."""
    folder.mkdir(parents=True)
    write_rows(folder / "all.jsonl", generated_rows(n))
    lines = (folder / "all.jsonl").read_text().splitlines(keepends=True)
    (folder / "all.jsonl").unlink()
    size = min(ROWS_PER_SHARD, n // N_SHARDS) if size is None else size
    starts = range(0, n, size)
    for number, start in enumerate(starts):
        (folder / f"part-{number:04d}.jsonl").write_text("".join(lines[start : start + size]))
    return len(starts)


def objective(x: np.ndarray, kept: np.ndarray) -> float:
    """Return the mean cosine of a row with its nearest pick, over all rows."""
    total = 0.0
    for low in range(0, len(x), 2048):
        total += float(np.maximum((x[low : low + 2048] @ x[kept].T).max(axis=1), 0).sum(dtype=np.float64))
    return total / len(x)


@dataclass(frozen=True)
class Noted:
    """Work that notes each attempt at a shard."""

    work: Any
    attempts: Path

    @property
    def name(self) -> str:
        """Of the work."""
        return self.work.name

    @property
    def folder(self) -> Path:
        """Of the work."""
        return self.work.folder

    @property
    def memory_bytes(self) -> int:
        """Of the work."""
        return self.work.memory_bytes

    @property
    def has_model(self) -> bool:
        """Of the work."""
        return self.work.has_model

    @property
    def can_use_gpu(self) -> bool:
        """Of the work."""
        return self.work.can_use_gpu

    def load_models(self) -> object:
        """Hold what the work holds."""
        return self.work.load_models()

    def __call__(self, number: int) -> dict[str, Any]:
        """Note the attempt, and do the shard."""
        (self.attempts / f"{self.work.name}-{number}-{time.time_ns()}").touch()
        return self.work(number)


def measure(n: int, budget: str, folder: Path) -> dict[str, Any]:
    """Select from n rows in each way."""
    import thresher as th
    from thresher.features import compute, make_context

    n_shards = write_pool(folder / "pool", n)
    pool = str(folder / "pool")
    parts = max(4, n // 5_000)
    runs: dict[str, Any] = {}
    ways = {
        "one machine": {},
        "ray, all rows at once": {"engine": "ray"},
        "ray, in partitions": {"engine": "ray", "partitions": parts},
    }
    picks, manifests = {}, {}
    for name, way in ways.items():
        began = time.perf_counter()
        subset = th.select(pool, budget=budget, encoder="static", out=folder / name, **way)
        content = dict(subset.manifest.content)
        run = content.pop("run")
        runs[name] = {"seconds": round(time.perf_counter() - began, 2), "stages": run["seconds"]}
        if "engine" in run:
            spent = run["engine"]["worker_seconds"]
            runs[name]["worker_seconds"] = spent
        picks[name], manifests[name] = subset.kept, content
        print(json.dumps({name: runs[name]}), flush=True)
    x = compute(th.load(pool), ["embedding"], make_context(encoder="static", cache=None))["embedding"]
    values = {name: objective(x, rows) for name, rows in picks.items()}
    rng = np.random.default_rng(0)
    values["random rows"] = objective(x, rng.choice(len(x), len(picks["one machine"]), replace=False))
    here, there = values["one machine"], values["ray, in partitions"]
    return {
        "rows": n,
        "shards": n_shards,
        "budget": budget,
        "partitions": parts,
        "objective": {name: round(value, 6) for name, value in values.items()},
        "ratio_of_partitions": round(there / here, 5),
        "same_manifest_at_once": manifests["one machine"] == manifests["ray, all rows at once"],
        "notes_of_partitions": manifests["ray, in partitions"]["notes"],
        "runs": runs,
    }


def make_call(pool: Path, budget: str) -> Any:
    """Return a call of `select` with its defaults."""
    from thresher.selection.request import SelectCall

    return SelectCall.of_options(str(pool), "facility-location", {"budget": budget, "encoder": "static"}, None)


def rates(folder: Path) -> dict[str, Any]:
    """Measure one worker on shards of 100,000 rows and parts of about 50,000, in this process."""
    from thresher.selection.distributed import InProcess, select_distributed

    n, parts = 200_000, 4
    write_pool(folder / "pool", n, 100_000)
    subset = select_distributed(InProcess(), make_call(folder / "pool", "1%"), folder / "out", partitions=parts)
    content = subset.manifest.content
    spent = content["run"]["engine"]["worker_seconds"]
    return {
        "command": "OMP_NUM_THREADS=1 python benchmarks/cluster.py --rates",
        "rows": n,
        "partitions": parts,
        "budget": "1%",
        "rows_per_second": {stage: round(entry["rows"] / entry["seconds"]) for stage, entry in spent.items()},
        "worker_seconds": spent,
        "seconds": content["run"]["seconds"],
        "notes": content["notes"],
    }


def lose_a_node(cluster: Any, node: Any, n: int, folder: Path) -> dict[str, Any]:
    """Remove a node while features are computed, and count attempts at shards."""
    import ray

    from thresher.selection.distributed import InProcess, select_distributed
    from thresher.selection.distributed.ray_engine import RayEngine

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    n_shards = write_pool(folder / "pool", n)
    attempts = folder / "attempts"
    attempts.mkdir()

    class Counting(RayEngine):
        def map_shards(self, work: Any, numbers: Any) -> Any:
            return super().map_shards(Noted(work, attempts), numbers)

        def map_shards_with_model(self, work: Any, numbers: Any) -> Any:
            return super().map_shards_with_model(Noted(work, attempts), numbers)

    removed: list[float] = []

    def watch(progress: Any) -> None:
        if progress.stage == "features" and progress.done >= n_shards // 4 and not removed:
            cluster.remove_node(node, allow_graceful=False)
            removed.append(time.time())

    call = make_call(folder / "pool", "5%")
    lost = select_distributed(Counting(), replace(call, on_progress=watch), folder / "lost", partitions=4)
    whole = select_distributed(InProcess(), call, folder / "whole", partitions=4)
    stages = [path.name.split("-")[0] for path in attempts.iterdir()]
    return {
        "rows": n,
        "shards": n_shards,
        "attempts_at_features": stages.count("features"),
        "shards_done_again": stages.count("features") - n_shards,
        "same_manifest": lost.manifest.hash == whole.manifest.hash,
        "seconds": lost.manifest.content["run"]["seconds"]["total"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000])
    parser.add_argument("--budget", default="5%")
    parser.add_argument("--rates", action="store_true", help="measure one worker instead, without Ray")
    parser.add_argument("--out", type=Path, default=RESULTS / "cluster.json")
    options = parser.parse_args()
    content = json.loads(options.out.read_text()) if options.out.exists() else {}
    folder = Path(tempfile.mkdtemp())
    if options.rates:
        content["rates"] = rates(folder)
        shutil.rmtree(folder)
        options.out.write_text(json.dumps(content, indent=2) + "\n")
        return
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    os.environ["THRESHER_CACHE"] = str(folder / "cache")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    results = []
    try:
        for n in options.rows:
            results.append(measure(n, options.budget, folder / str(n)))
            print(json.dumps(results[-1], indent=2), flush=True)
        lost = lose_a_node(cluster, node, min(options.rows), folder / "lost")
        print(json.dumps(lost, indent=2), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    command = "python benchmarks/cluster.py " + " ".join(sys.argv[1:])
    earlier = content.get("results", [])
    new = [{"command": command, **result} for result in results]
    others = [result for result in earlier if result["rows"] not in options.rows]
    content |= {
        "nodes": 2,
        "processors_per_node": 1,
        "results": sorted([*others, *new], key=lambda result: result["rows"]),
        "lost_node": {"command": command, **lost},
        "machine": machine("ray", "polars", "pyarrow", "faiss-cpu", "numba"),
    }
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
