"""The greedy kernels against apricot-select, submodlib-py and plain numpy, on the same arrays.

    python benchmarks/kernels.py [--quick] [--sizes 1000,2000,5000,10000] [--repeats 3]
        [--parts dense,sparse,large]
                                 [--exact-large] [--out FILE]

Facility location in all parts, 10 % of the rows picked unless said otherwise:

- dense: the (n, n) kernel is given to everybody, in the type it likes best; then the embeddings
  are.
- sparse: the graph of 64 nearest neighbors of 100,000 rows is given to everybody, 5,000 picks.
- large: 52,000 x 384 embeddings, thresher alone, with the share of the exact greedy's objective
  (`--exact-large` computes it on the dense kernel: 11 GB).

Every peer runs in a process of its own, one after the other, so that its peak memory is its own:
the peak of a process that only loads the arrays is taken off. Everybody makes one small run first,
so that compilation is not measured; apricot compiles anew in every `fit`, which cannot be kept out
and is reported ("compile_s"). Picks are compared with the exact greedy in float64, of which ties go
to the lowest row. A peer is skipped, with the reason, where its last size took longer than --limit
seconds.

`--quick` takes a minute, everything about half an hour.
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
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from kernel_figure import plot, print_row
from machine import machine

RESULT = Path(__file__).parent / "results" / "kernels.json"
PEERS = ("thresher", "apricot lazy", "submodlib", "numpy")
D = 384
DATA = ("gaussian", "50 clusters")


def vectors(data, n, d, seed=0):
    """Return unit rows, (n, d) float32."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d), dtype=np.float32)
    if data != "gaussian":
        center = rng.standard_normal((int(data.split()[0]), d), dtype=np.float32)
        x = center[rng.integers(len(center), size=n)] + np.float32(0.7) * x
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# --- what each peer does with the arrays; the imports are not measured ---


def thresher_call(kind, arrays, k):
    import polars as pl

    from thresher.features.container import Features
    from thresher.numeric.vectors import inverse_norms
    from thresher.selectors.facility_location import FacilityLocation
    from thresher.selectors.submodular import dense_kernel, greedy, pick_rules

    x = arrays["x"]
    n = len(x)

    def engine(stage, *arguments):
        cover = greedy.start_coverage(x, inverse_norms(x), np.ones(n, np.float32), np.zeros(n))
        chooser = pick_rules.start_pick_rule("lazy", 0.1, np.random.default_rng(0), cover.is_pick)
        return stage(*arguments, cover, k, chooser)

    if kind == "kernel":
        kernel = arrays["kernel32"]
        return lambda: engine(dense_kernel.pick_from_kernel, kernel).rows
    if kind == "graph":
        start, row, similarity = arrays["start"], arrays["row"], arrays["similarity"]
        # the engine reorders the graph it is given: the copy is a part of the measured time
        return lambda: engine(greedy.pick_from_graph, greedy.Graph(start, row.copy(), similarity.copy())).rows
    data = Features(row_id=pl.Series([f"{i:07d}" for i in range(n)]), arrays={"embedding": x})
    notes = {}

    def select():
        scores = FacilityLocation().score(data, n_ranked=k, rng=np.random.default_rng(0))
        notes.update(scores.notes)
        return scores.ranking()

    select.notes = notes
    return select


def apricot_call(kind, arrays, k):
    from apricot import FacilityLocationSelection
    from scipy.sparse import csr_matrix

    if kind == "kernel":
        rows, metric = arrays["kernel64"], "precomputed"
    elif kind == "graph":
        n = len(arrays["x"])
        similarity = arrays["similarity"].astype(np.float64)
        rows, metric = csr_matrix((similarity, arrays["row"], arrays["start"]), shape=(n, n)), "precomputed"
    else:
        rows, metric = arrays["x"], "cosine"
    return lambda: FacilityLocationSelection(k, metric=metric, optimizer="lazy").fit(rows).ranking


def submodlib_call(kind, arrays, k):
    from submodlib import FacilityLocationFunction

    x = arrays["x"]
    n = len(x)
    if kind == "graph":
        return "its sparse mode needed 97 s for 8,000 rows: 100,000 are out of reach"

    def run():
        options = {"sijs": arrays["kernel64"], "pybind_mode": "array64"} if kind == "kernel" else {"data": x}
        function = FacilityLocationFunction(n=n, mode="dense", separate_rep=False, metric="cosine", **options)
        picks = function.maximize(
            k, optimizer="LazyGreedy", stopIfZeroGain=False, stopIfNegativeGain=False, show_progress=False
        )
        return np.array([pick for pick, _ in picks])

    return run


def numpy_call(kind, arrays, k):
    """Exact greedy with gains that are kept up to date, in float64; ties to the lowest row."""
    if kind == "graph":
        return "a plain loop over 100,000 rows of a sparse graph"

    def run():
        kernel = arrays["kernel64"] if kind == "kernel" else np.maximum(exact_cosines(arrays["x"]), 0)
        best, gain = np.zeros(len(kernel)), kernel.sum(axis=0)
        picks = []
        for _ in range(k):
            pick = int(np.flatnonzero(gain >= gain.max() - 1e-11 * (1 + gain.max()))[0])
            rows = np.flatnonzero(kernel[pick] > best)
            raised = kernel[pick, rows]
            gain -= (np.clip(kernel[rows], best[rows, None], raised[:, None]) - best[rows, None]).sum(axis=0)
            best[rows], gain[pick] = raised, -np.inf
            picks.append(pick)
        return np.array(picks)

    return run


def exact_cosines(x):
    wide = x.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide @ wide.T


CALLS = {
    "thresher": thresher_call,
    "apricot lazy": apricot_call,
    "submodlib": submodlib_call,
    "numpy": numpy_call,
    "nothing": lambda kind, arrays, k: lambda: np.zeros(0, np.int64),
    "nothing beside thresher": lambda kind, arrays, k: lambda: np.zeros(0, np.int64),
}
PACKAGES = {"thresher": "thresher", "apricot lazy": "apricot-select", "submodlib": "submodlib-py"}


# --- one peer in a process of its own ---


def child(folder, peer, kind, k, repeats):
    """Run one peer and print what was measured as JSON; the picks go to a file."""
    warnings.simplefilter("ignore")  # apricot's numba signatures are old
    needed = {
        "kernel": {"kernel32" if peer.endswith("thresher") else "kernel64"},
        "graph": {"start", "row", "similarity"},
    }
    names = {"x"} | needed.get(kind, set())
    arrays = {name: np.load(folder / f"{name}.npy") for name in names}
    small = {name: np.load(folder / "small" / f"{name}.npy") for name in names}
    call = CALLS[peer](kind, small, 5)
    if isinstance(call, str):
        return {"skipped": call}
    call()
    begin = time.perf_counter()
    call()
    compile_s = time.perf_counter() - begin  # of 200 rows: nearly all compilation and imports
    call = CALLS[peer](kind, arrays, k)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        picks = call()
        seconds.append(time.perf_counter() - begin)
    np.save(folder / "picks.npy", picks)
    peak = peak_bytes()
    return {
        "seconds": seconds,
        "small_s": compile_s,
        "peak_bytes": peak,
        "notes": getattr(call, "notes", {}),
    }


def peak_bytes():
    """Return the peak of this process alone; getrusage counts what the parent held at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(folder, peer, kind, k, repeats):
    command = [sys.executable, __file__, "--child", str(folder), peer, kind, str(k), str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [str(done.returncode)]
        return {"skipped": f"failed: {lines[-1]}"}
    return json.loads(done.stdout.splitlines()[-1])


def absent(peer):
    """Return why a peer cannot be measured, or None."""
    if is_installed(PACKAGES.get(peer, "numpy")):
        return None
    return f"{PACKAGES[peer]} is not installed: pip install 'thresher[bench]'"


# --- the parts ---


def write_arrays(folder, x, *, with_kernel=False, graph=None):
    for name, array in {"x": x, **({} if graph is None else graph)}.items():
        np.save(folder / f"{name}.npy", array)
    if with_kernel:
        kernel = np.maximum(exact_cosines(x), 0)
        kernel = (kernel + kernel.T) / 2
        np.save(folder / "kernel64.npy", kernel)
        np.save(folder / "kernel32.npy", kernel.astype(np.float32))


def objective(x, picks):
    """Return facility location of some picks, over all pairs, in blocks."""
    total = 0.0
    for first in range(0, len(x), 2048):
        total += float(np.maximum((x[first : first + 2048] @ x[picks].T).max(axis=1), 0).sum(dtype=np.float64))
    return total


def compare(folder, kind, x, k, arguments, slow, value):
    """Measure all peers on one set of arrays."""
    rows, picks = {}, {}
    nothing, nothing32 = (
        measured(folder, peer, kind, k, 1)["peak_bytes"] for peer in ("nothing", "nothing beside thresher")
    )
    for peer in PEERS:
        reason = absent(peer) or slow.get((peer, kind))
        entry = {"skipped": reason} if reason else measured(folder, peer, kind, k, arguments.repeats)
        rows[peer] = entry
        if "skipped" in entry:
            continue
        picks[peer] = np.load(folder / "picks.npy")
        entry["median_s"] = statistics.median(entry["seconds"])
        entry["peak_bytes"] = max(entry["peak_bytes"] - (nothing32 if peer == "thresher" else nothing), 0)
        if entry["median_s"] > arguments.limit:
            slow[peer, kind] = f"{entry['median_s']:.0f} s for {len(x):,} rows, more than --limit"
        entry["n_distinct_picks"] = len(set(picks[peer].tolist()))
        entry["objective"] = value(picks[peer])
    reference = "numpy" if "numpy" in picks else "thresher"
    for peer, entry in rows.items():
        if peer in picks:
            entry["picks_equal_to_exact"] = (
                int((picks[peer] == picks[reference]).sum()) if reference == "numpy" else None
            )
            entry["objective_share"] = entry["objective"] / rows[reference]["objective"]
            entry["times_thresher"] = entry["median_s"] / rows["thresher"]["median_s"]
    return {"kind": kind, "n": len(x), "k": k, "peers": rows}


def dense_part(folder, arguments):
    for data in DATA:
        slow = {}
        for n in arguments.sizes:
            x = vectors(data, n, D)
            write_arrays(folder, x, with_kernel=True)
            for kind in ("kernel", "embeddings"):
                row = compare(folder, kind, x, max(n // 10, 1), arguments, slow, lambda p, x=x: objective(x, p))
                yield {"part": "dense", "data": data, **row}


def sparse_part(folder, arguments):
    from thresher.selectors.neighbors.search import build_neighbor_graph

    n, k = (5_000, 250) if arguments.quick else (100_000, 5_000)
    x = vectors("1000 clusters", n, 64)
    graph = build_neighbor_graph(x, 64, np.random.default_rng(0)).graph
    arrays = {"start": graph.start, "row": graph.row, "similarity": graph.similarity}
    order = np.lexsort((graph.row, np.repeat(np.arange(n), np.diff(graph.start))))
    arrays |= {"row": graph.row[order], "similarity": graph.similarity[order]}
    write_arrays(folder, x, graph=arrays)

    def value(picks):
        best = np.zeros(n)
        for pick in picks:
            part = slice(graph.start[pick], graph.start[pick + 1])
            np.maximum.at(best, graph.row[part], graph.similarity[part])
        return float(best.sum())

    yield {"part": "sparse", "data": "1000 clusters", **compare(folder, "graph", x, k, arguments, {}, value)}


def large_part(folder, arguments):
    n = 5_000 if arguments.quick else 52_000
    x = vectors("2000 clusters", n, D)
    write_arrays(folder, x)
    base = measured(folder, "nothing", "embeddings", 1, 1)["peak_bytes"]
    row = {"part": "large", "data": "2000 clusters", "kind": "embeddings", "n": n, "k": n // 10}
    entry = measured(folder, "thresher", "embeddings", n // 10, arguments.repeats)
    picks = np.load(folder / "picks.npy")
    entry |= {
        "median_s": statistics.median(entry["seconds"]),
        "added_bytes": max(entry["peak_bytes"] - base, 0),
        "n_distinct_picks": len(set(picks.tolist())),
        "objective": objective(x, picks),
    }
    if arguments.exact_large or arguments.quick:
        from thresher.numeric.vectors import inverse_norms
        from thresher.selectors.submodular import dense_kernel, greedy, pick_rules

        cover = greedy.start_coverage(x, inverse_norms(x), np.ones(n, np.float32), np.zeros(n))
        chooser = pick_rules.start_pick_rule("lazy", 0.1, np.random.default_rng(0), cover.is_pick)
        exact = dense_kernel.pick_from_kernel(dense_kernel.compute_kernel(x), cover, n // 10, chooser).rows
        entry["exact_objective"] = objective(x, exact)
        entry["share_of_exact_objective"] = entry["objective"] / entry["exact_objective"]
    yield {**row, "peers": {"thresher": entry}}


PARTS = {"large": large_part, "dense": dense_part, "sparse": sparse_part}


def prepare_small(folder):
    """Write a small set for the run that compiles."""
    (folder / "small").mkdir()
    x = vectors("gaussian", 200, 16, seed=1)
    start = np.arange(0, 40_001, 200, dtype=np.int64)
    kernel = np.maximum(x @ x.T, 0).astype(np.float32)
    kernel = np.maximum(kernel, kernel.T)
    graph = {"start": start, "row": np.tile(np.arange(200, dtype=np.int32), 200), "similarity": kernel.reshape(-1)}
    write_arrays(folder / "small", x, with_kernel=True, graph=graph)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds after which a peer gets no larger size")
    parser.add_argument("--parts", default="large,dense,sparse")
    parser.add_argument("--exact-large", action="store_true", help="the exact objective of the large part, 11 GB")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or ([500, 1000] if arguments.quick else [1000, 2000, 5000, 10_000])
    packages = ("numba", "scipy", "faiss-cpu", "apricot-select", "submodlib-py")
    result = {
        "machine": machine(*filter(is_installed, packages)),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load before": os.getloadavg(),
        "repeats": arguments.repeats,
        "rows": [],
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare_small(folder)
        for part in arguments.parts.split(","):
            for row in PARTS[part](folder, arguments):
                result["rows"].append(row)
                print_row(row)
    result["load after"] = os.getloadavg()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    if any(row["part"] == "dense" for row in result["rows"]):
        plot(result["rows"], arguments.out.with_suffix(".png"), PEERS, DATA[0])
    print(f"written: {arguments.out}")


def is_installed(package):
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        folder, peer, kind, k, repeats = sys.argv[2:]
        print(json.dumps(child(Path(folder), peer, kind, int(k), int(repeats))))
    else:
        main()
