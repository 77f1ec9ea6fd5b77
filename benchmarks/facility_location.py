"""Facility location against apricot-select on the same arrays in one process.

    python benchmarks/facility_location.py [--rows 5000] [--picks 500] [--repeats 3] [--large]
        [--out FILE]

Measures, per data set: thresher from the embeddings (the whole `score`), thresher's engine on a
precomputed float32 kernel, apricot's `lazy` on a precomputed float64 kernel and from the embeddings
(metric="cosine", its own kernel), and apricot's `naive` once, as the oracle of the picks.
thresher's compilation happens in a first call and is reported apart; apricot compiles in every
call, so its seconds on 100 rows are given beside the ratios. --large adds the sparse kernel on
100,000 x 256 clustered vectors, 10 % picks.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

from thresher.features.container import Features
from thresher.numeric.vectors import distinct_rows, inverse_norms, unit_rows
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.submodular import dense_kernel, greedy, pick_rules

RESULT = Path(__file__).parent / "results" / "facility_location.json"
PACKAGES = ("numba", "faiss-cpu", "scipy", "apricot-select", "scikit-learn")


def clustered(n, d, n_clusters, rng, spread=0.7):
    center = rng.standard_normal((n_clusters, d), dtype=np.float32)
    noise = rng.standard_normal((n, d), dtype=np.float32)
    return center[rng.integers(n_clusters, size=n)] + np.float32(spread) * noise


def data_sets(n, d=384):
    rng = np.random.default_rng(0)
    yield "gaussian", rng.standard_normal((n, d), dtype=np.float32)
    yield "50 clusters", clustered(n, d, 50, rng)
    yield "500 clusters", clustered(n, d, 500, rng)
    x = clustered(n, d, 50, rng)
    copies = rng.choice(n, int(0.3 * n), replace=False)
    x[copies] = x[rng.choice(np.setdiff1d(np.arange(n), copies), len(copies))]
    yield "50 clusters, 30 % exact duplicates", x


def clipped_kernel(x):
    """Float64 cosines, negative ones 0; equal rows get equal columns, unlike in a plain product."""
    distinct, group = np.unique(x, axis=0, return_inverse=True)
    distinct = distinct.astype(np.float64)
    distinct /= np.linalg.norm(distinct, axis=1, keepdims=True)
    kernel = np.maximum(distinct @ distinct.T, 0)
    return np.ascontiguousarray(kernel[group.reshape(-1)][:, group.reshape(-1)])


def features(x):
    return Features(row_id=pl.Series([f"{i:07d}" for i in range(len(x))]), arrays={"embedding": x})


def thresher_from_embeddings(data, n_picks):
    scores = FacilityLocation().score(data, n_ranked=n_picks, rng=np.random.default_rng(0))
    return scores.ranking()


def thresher_from_kernel(kernel, x, scale, n_picks):
    """Run the engine on a given kernel; the time includes merging equal rows, as `score` does."""
    distinct = distinct_rows(x)
    first = distinct.first
    if len(first) < len(x):
        kernel, x, scale = kernel[np.ix_(first, first)], x[first], scale[first]
    cover = greedy.start_coverage(x, scale, distinct.size.astype(np.float32), np.zeros(len(x)))
    chooser = pick_rules.start_pick_rule("lazy", 0.1, np.random.default_rng(0), cover.is_pick)
    return first[dense_kernel.pick_from_kernel(kernel, cover, n_picks, chooser).rows]


def apricot(x, n_picks, metric, optimizer):
    from apricot import FacilityLocationSelection

    return FacilityLocationSelection(n_picks, metric=metric, optimizer=optimizer).fit(x).ranking


def largest_shortfall(kernel, picks):
    """Return by how much any pick's gain falls short of the largest gain, over the float64 kernel.

    Rounding aside it must be 0 for a greedy run. Where it is 0 and the picks still differ from
    `naive`, two rows have equal gains (typically two that cover only each other): we take the lower
    row, `naive` what rounding favors.
    """
    best = np.zeros(len(kernel))
    gain = kernel.sum(axis=0)
    shortfall = 0.0
    for pick in picks:
        shortfall = max(shortfall, gain.max() - gain[pick])
        rows = np.flatnonzero(kernel[pick] > best)
        raised = kernel[pick, rows]
        gain -= (np.clip(kernel[rows], best[rows, None], raised[:, None]) - best[rows, None]).sum(axis=0)
        best[rows] = raised
        gain[pick] = -np.inf
    return shortfall


def timed(call, repeats):
    """Return seconds of `repeats` calls and the last result."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - begin)
    return seconds, result


def compare(name, x, n_picks, repeats):
    data, kernel64 = features(x), clipped_kernel(x)
    scale = inverse_norms(x)
    kernel32 = dense_kernel.compute_kernel(unit_rows(x))
    calls = {
        "thresher, embeddings": lambda: thresher_from_embeddings(data, n_picks),
        "apricot lazy, embeddings": lambda: apricot(x, n_picks, "cosine", "lazy"),
        "thresher, kernel": lambda: thresher_from_kernel(kernel32, x, scale, n_picks),
        "apricot lazy, kernel": lambda: apricot(kernel64, n_picks, "precomputed", "lazy"),
    }
    seconds = {key: [] for key in calls}
    picks = {}
    for _ in range(repeats):  # in turns, so that a busy moment of the machine meets all of them
        for key, call in calls.items():
            n_calls = 3 if key.startswith("thresher") else 1
            times, picks[key] = timed(call, n_calls)
            seconds[key].append(statistics.median(times))
    naive_seconds, naive = timed(lambda: apricot(kernel64, n_picks, "precomputed", "naive"), 1)
    median = {key: statistics.median(values) for key, values in seconds.items()}
    return {
        "data": name,
        "seconds": {key: [round(v, 4) for v in values] for key, values in seconds.items()},
        "median_s": {key: round(v, 4) for key, v in median.items()},
        "apricot naive_s": round(naive_seconds[0], 2),
        "ratio, embeddings": round(median["apricot lazy, embeddings"] / median["thresher, embeddings"], 1),
        "ratio, kernel": round(median["apricot lazy, kernel"] / median["thresher, kernel"], 1),
        "picks equal to naive": int((picks["thresher, embeddings"] == naive).sum()),
        "largest shortfall of a gain": float(f"{largest_shortfall(kernel64, picks['thresher, embeddings']):.1e}"),
        "picks of the engine equal to naive": int((picks["thresher, kernel"] == naive).sum()),
        "lazy picks equal to naive": int((picks["apricot lazy, kernel"] == naive).sum()),
        "picks": n_picks,
    }


def measure_large(n=100_000, d=256, share=0.1):
    x = clustered(n, d, 1000, np.random.default_rng(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (seconds,), scores = timed(
        lambda: FacilityLocation().score(features(x), n_ranked=int(share * n), rng=np.random.default_rng(0)), 1
    )
    ranking = scores.ranking()
    return {
        "rows": n,
        "dimensions": d,
        "picks": len(ranking),
        "distinct picks": len(set(ranking.tolist())),
        "seconds": round(seconds, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "peak before_gb": round(before * 1024 / 1e9, 2),
        "notes": scores.notes,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--picks", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--large-only", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # apricot's numba signatures

    result = {
        "machine": machine(*PACKAGES),
        "load before": os.getloadavg(),
        "rows": arguments.rows,
        "note": (
            "every call was made once before it was measured, so thresher's compilation is not in the seconds; "
            "apricot compiles anew in every call, which cannot be kept out: its seconds on 100 rows show how long"
        ),
    }
    if arguments.large or arguments.large_only:  # first: the peak of the process is then its own
        result["large"] = measure_large()
        print(json.dumps(result["large"], indent=1))
    if not arguments.large_only:
        small = features(np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32))
        (result["compile_or_load_s"],), _ = timed(lambda: thresher_from_embeddings(small, 30), 1)
        for optimizer in ("lazy", "naive"):
            apricot(clipped_kernel(small["embedding"]), 5, "precomputed", optimizer)
        tiny = clipped_kernel(small["embedding"][:100])
        times, _ = timed(lambda: apricot(tiny, 5, "precomputed", "lazy"), 5)
        result["apricot lazy on 100 rows_s"] = round(statistics.median(times), 3)
        print(f"apricot lazy on 100 rows (its compilation): {result['apricot lazy on 100 rows_s']} s")
        result["sets"] = []
        for name, x in data_sets(arguments.rows):
            result["sets"].append(compare(name, x, arguments.picks, arguments.repeats))
            print_row(result["sets"][-1])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {arguments.out}")


def print_row(row):
    median = row["median_s"]
    print(
        f"{row['data']:36s} embeddings {median['thresher, embeddings'] * 1000:6.1f} ms, lazy "
        f"{median['apricot lazy, embeddings'] * 1000:6.0f} ms, ratio {row['ratio, embeddings']:5.1f} | kernel "
        f"{median['thresher, kernel'] * 1000:6.1f} ms, lazy {median['apricot lazy, kernel'] * 1000:6.0f} ms, ratio "
        f"{row['ratio, kernel']:5.1f} | equal to naive {row['picks equal to naive']}/{row['picks']} "
        f"(engine {row['picks of the engine equal to naive']}, lazy {row['lazy picks equal to naive']}), "
        f"shortfall {row['largest shortfall of a gain']:.0e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
