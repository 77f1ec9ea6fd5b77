"""Time and peak memory of each stage, from a file of rows to a written subset, by number of rows.

    python benchmarks/million.py                          # 10,000, 100,000 and 1,000,000 made rows
    python benchmarks/million.py --data t0_pool.jsonl.gz  # rows of a file, repeated with noise
    python benchmarks/million.py --rows 100000 --stages read,embed
    python benchmarks/million.py --repeats 3              # three times each: the median run counts
    python benchmarks/million.py --second                 # then another budget, another method

Rows have about 60 tokens: product listings by the generator of `data/`, or 40 words out of a row of
--data, one word in ten replaced. One row in twenty is an exact copy of an earlier one. Each number
of rows runs in a process of its own with an empty feature cache: read, curate (exact and semantic
duplicates), embed, neighbors, greedy, write. The kernel's own high-water mark, reset at each
stage, is the peak (Linux only). With --second two more processes read the cleaned rows of the first
one and choose from them, with its cache: twice the budget, and another method.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from machine import machine

ROWS = (10_000, 100_000, 1_000_000)
STAGES = ("read", "curate", "embed", "select", "write")
RULES = ("exact-duplicates", "semantic-duplicates")
N_WORDS = 40  # of a row of --data: about 60 tokens
SHARE_NOISE = 0.1
SHARE_COPIED = 0.05
SECOND = {"second budget": ("facility-location", 2), "second method": ("saturated-coverage", 1)}
RESULTS = Path(__file__).parent / "results"


def generated_rows(n: int) -> Iterator[dict[str, str]]:
    """Yield n requests for a listing, and listings."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "data"))
    from make_products import STYLES, Catalog

    rng = random.Random(7)
    catalog = Catalog(rng)
    for _ in range(n):
        product = catalog.product(rng)
        style = rng.choice(list(STYLES))
        prompt = f"Write a listing for {style}: {product.brand} {product.series}, {product.noun}"
        yield {"prompt": prompt, "completion": STYLES[style](product, catalog.words, rng)}


def repeated_rows(path: Path, n: int) -> Iterator[dict[str, str]]:
    """Yield n rows cut out of the texts of a file, again and again, each time with other noise."""
    rng = random.Random(7)
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        texts = [" ".join(value for value in json.loads(line).values() if isinstance(value, str)) for line in file]
    vocabulary = list(dict.fromkeys(word for text in texts for word in re.findall(r"[a-z]{3,12}", text)))
    words = [text.split() for text in texts]
    for _ in range(n):
        text = rng.choice(words)
        at = rng.randrange(max(len(text) - N_WORDS, 1))
        row = text[at : at + N_WORDS]
        for i in range(len(row)):
            if rng.random() < SHARE_NOISE:
                row[i] = rng.choice(vocabulary)
        cut = max(len(row) // 2, 1)
        yield {"prompt": " ".join(row[:cut]), "completion": " ".join(row[cut:]) or row[0]}


def write_rows(path: Path, rows: Iterator[dict[str, str]]) -> None:
    """Write rows as JSON lines, some of them copies of an earlier one."""
    rng = random.Random(8)
    earlier: list[str] = []
    with open(path, "w") as file:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False) + "\n"
            if earlier and rng.random() < SHARE_COPIED:
                line = rng.choice(earlier)
            elif len(earlier) < 10_000:
                earlier.append(line)
            file.write(line)


class Stages:
    """Seconds and peak memory by stage; a stage inside another counts for itself alone."""

    def __init__(self) -> None:
        self.times: dict[str, dict[str, float]] = {}
        self._open: list[str] = []
        self._began = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs within."""
        self._close()
        self._open.append(name)
        self._start()
        try:
            yield
        finally:
            self._close()
            self._open.pop()
            self._start()

    def _start(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        self._began = time.perf_counter()

    def _close(self) -> None:
        if self._open:
            entry = self.times.setdefault(self._open[-1], {"seconds": 0.0, "peak_mb": 0.0})
            entry["seconds"] += time.perf_counter() - self._began
            entry["peak_mb"] = max(entry["peak_mb"], _peak_mb())

    def wrap(self, owner: object, attribute: str, name: str) -> None:
        """Let each call of a function count as a stage."""
        function: Callable[..., object] = getattr(owner, attribute)

        def measured(*args: object, **kwargs: object) -> object:
            with self.stage(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, measured)


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def run_stages(path: Path, folder: Path, stage_names: list[str], budget: str) -> dict[str, object]:
    """Run in this process; returns what was measured and what came out."""
    import thresher as th
    from thresher import features
    from thresher.artifacts.folder import OutputFolder
    from thresher.selectors.neighbors import search
    from thresher.selectors.submodular import greedy
    from thresher.subset.subset import Subset

    stages = Stages()
    stages.wrap(features, "compute", "embed")
    stages.wrap(search, "build_neighbor_graph", "neighbors")
    stages.wrap(greedy, "pick_from_graph", "greedy")
    stages.wrap(Subset, "write_files", "write")
    stages.wrap(OutputFolder, "publish", "write")
    result: dict[str, object] = {}
    with stages.stage("read"):
        pool = th.load(path)
    result |= {"rows": len(pool), "bytes": path.stat().st_size}
    if "curate" in stage_names:
        with stages.stage("curate"):
            curated = th.curate(pool, list(RULES), encoder="static", out=folder / "curated")
        result["rules"] = curated.manifest.content["rules"]
        pool = curated.dataset
    if "embed" in stage_names and "select" not in stage_names:
        context = features.make_context(encoder="static").resolved()
        features.compute(pool, ["embedding"], context)
    if "write" in stage_names and "select" not in stage_names:
        with stages.stage("selection (random)"):
            th.select(pool, "random", budget=budget, out=folder / "out")
    if "select" in stage_names:
        with stages.stage("selection, the rest"):
            subset = th.select(pool, "facility-location", budget=budget, encoder="static", out=folder / "out")
        content = subset.manifest.content
        result |= {"kept": len(subset), "objective": content["objective"], "notes": content["notes"]}
    times = {name: {key: round(value, 2) for key, value in entry.items()} for name, entry in stages.times.items()}
    return {**result, "stages": times}


def choose_again(folder: Path, name: str, budget: str) -> dict[str, object]:
    """Choose from the cleaned rows of an earlier run once more, in this process."""
    import thresher as th

    method, factor = SECOND[name]
    budget = f"{factor * float(budget.removesuffix('%')):g}%" if budget.endswith("%") else str(factor * int(budget))
    out = folder / name.replace(" ", "-")
    subset = th.select(th.load(folder / "curated"), method, budget=budget, encoder="static", out=out)
    return {"method": method, "budget": budget, "kept": len(subset), "notes": subset.manifest.content["notes"]}


def run_child(folder: Path, arguments: list[str]) -> tuple[float, dict[str, object]]:
    """Run this script in a new process, with the cache of that folder.

    Returns seconds, and what it printed.
    """
    command = [sys.executable, __file__, "--folder", str(folder), *arguments]
    began = time.perf_counter()
    with open(folder / "result.json", "wb") as out:
        process = subprocess.Popen(command, stdout=out, env={**os.environ, "THRESHER_CACHE": str(folder / "cache")})
        status = process.wait()
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return seconds, json.loads((folder / "result.json").read_bytes())


def measure(path: Path, stages: list[str], budget: str, *, has_second: bool = False) -> dict[str, object]:
    """Run the stages in a new process with an empty cache, and then what is chosen second."""
    folder = Path(tempfile.mkdtemp(dir=path.parent))
    seconds, result = run_child(folder, ["--child", str(path), "--stages", ",".join(stages), "--budget", budget])
    for name in SECOND if has_second else ():
        again, chosen = run_child(folder, ["--again", name, "--budget", budget])
        result[name] = {"seconds": round(again, 2), "ratio": round(again / seconds, 3), **chosen}
    shutil.rmtree(folder)
    peak = max(entry["peak_mb"] for entry in result["stages"].values())
    return {"seconds": round(seconds, 2), "peak_mb": round(peak), **result}


def read_seconds(run: dict[str, object]) -> float:
    """Return how long a run took in all."""
    return float(run["seconds"])


def growth(results: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the exponent of time in rows between neighboring sizes."""
    rates = []
    for small, large in zip(results, results[1:], strict=False):
        ratio = math.log(large["seconds"] / small["seconds"]) / math.log(large["rows"] / small["rows"])
        rates.append({"from": small["rows"], "to": large["rows"], "exponent": round(ratio, 3)})
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--data", type=Path, help="JSONL file whose rows are repeated with noise")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"some of {','.join(STAGES)}")
    parser.add_argument("--budget", default="5%")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--pools", type=Path, help="folder where generated pools are kept for the next call")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--second", action="store_true", help="choose twice more, with the cache of the first choice")
    parser.add_argument("--again", choices=list(SECOND), help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    stage_names = options.stages.split(",")
    if options.child:
        print(json.dumps(run_stages(options.child, options.folder, stage_names, options.budget)))
        return
    if options.again:
        print(json.dumps(choose_again(options.folder, options.again, options.budget)))
        return
    name = "generated" if options.data is None else options.data.name.split(".")[0]
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        pools = options.pools or Path(temporary)
        pools.mkdir(parents=True, exist_ok=True)
        for n in options.rows:
            path = pools / f"{name}-{n}.jsonl"
            if not path.exists():
                write_rows(path, generated_rows(n) if options.data is None else repeated_rows(options.data, n))
            runs = sorted(
                (measure(path, stage_names, options.budget, has_second=options.second) for _ in range(options.repeats)),
                key=read_seconds,
            )
            of_runs = {name: [run[name] for run in runs] for name in ("seconds", "peak_mb")}
            results.append({**runs[len(runs) // 2], "runs": of_runs})
            print(json.dumps(results[-1], indent=2), flush=True)
    content = {
        "command": "python benchmarks/million.py " + " ".join(sys.argv[1:]),
        "pool": name,
        "results": results,
        "growth": growth(results),
        "machine": machine("polars", "pyarrow", "faiss-cpu", "numba", "tokenizers"),
    }
    out = options.out or RESULTS / ("million.json" if options.data is None else f"million-{name}.json")
    out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
