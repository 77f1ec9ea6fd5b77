"""Do learnability, difficulty, perplexity and their kin rank rows by more than length?

    python benchmarks/rank_correlations.py --data PATH --rows 2000

PATH is the folder with gsm8k, dolly_3k and alpaca_9k; the result is Spearman's rho, with intervals.

For each data set, `rows` rows drawn at random are scored by each method under the toy
language model `tiny`, with the references that `learnability` and `novelty` have trained for them.
Both lengths stand beside the methods: tokens of the whole row (what `length` ranks by) and of its
response. Each pair is compared on the rows that both methods give a place; the interval is the 2.5
to 97.5 % range over 1,000 bootstrap samples of the rows.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from scipy.stats import rankdata

import thresher as th
from thresher.features import FeatureContext, compute
from thresher.selectors import available

METHODS = {
    "length": ("length", {}),
    "perplexity": ("perplexity", {"band": "high"}),
    "difficulty": ("difficulty", {}),
    "learnability": ("learnability", {}),
    "learnability-difference": ("learnability", {"form": "difference"}),
    "novelty": ("novelty", {}),
    "confidence": ("confidence", {}),
}
# Confidence writes answers, which takes many times as long.
DEFAULT = [name for name in METHODS if name != "confidence"]
RESPONSE = "response length"
N_BOOTSTRAP = 1000


FILES = {
    "gsm8k": ("gsm8k/train.jsonl", {"prompt": "question", "response": "answer"}),
    "dolly": ("dolly_3k/dolly_3k.json", {"prompt": "instruction+input", "response": "output"}),
    "alpaca": ("alpaca_9k/random_9k.json", {"prompt": "instruction+input", "response": "output"}),
}


def scores(pool: th.Dataset, names: list[str]) -> dict[str, NDArray[np.float64]]:
    """Return (n,) of each method, NaN for rows without a place, and the length of responses."""
    values = {}
    for name in names:
        method, settings = METHODS[name]
        subset = th.select(pool, method, budget=len(pool), settings=settings, encoder="static", model="tiny")
        values[name] = np.where(subset.scores.value == -np.inf, np.nan, subset.scores.value)
        print(f"  {name}: {subset.manifest.content['run']['seconds']['total']:.1f} s", flush=True)
    n_scored = compute(pool, {"n_response_tokens"}, FeatureContext())["n_response_tokens"]
    return {**values, RESPONSE: n_scored.astype(np.float64)}


def spearman(x: NDArray[np.float64], y: NDArray[np.float64], rng: np.random.Generator) -> dict[str, float]:
    """Return rho of the rows that both place, its bootstrap interval, and their number."""
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"rho": float("nan"), "low": float("nan"), "high": float("nan"), "n": len(x)}

    def rho(at: NDArray[np.int64]) -> float:
        return float(np.corrcoef(rankdata(x[at]), rankdata(y[at]))[0, 1])

    resampled = [rho(rng.integers(len(x), size=len(x))) for _ in range(N_BOOTSTRAP)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"rho": rho(np.arange(len(x))), "low": float(low), "high": float(high), "n": len(x)}


def measure(name: str, folder: Path, n_rows: int, methods: list[str]) -> dict[str, object]:
    """Return the correlations of one data set."""
    path, columns = FILES[name]
    rows = th.load(folder / path, columns=columns)
    pool = rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:n_rows]))
    print(f"{name}: {len(pool):,} rows", flush=True)
    began = time.monotonic()
    by_method = scores(pool, methods)
    rng = np.random.default_rng(0)
    pairs = [{"a": a, "b": b, **spearman(by_method[a], by_method[b], rng)} for a, b in combinations(by_method, 2)]
    placed = {method: int(np.isfinite(values).sum()) for method, values in by_method.items()}
    return {"rows": len(pool), "placed": placed, "pairs": pairs, "seconds": round(time.monotonic() - began, 1)}


def table(result: dict[str, object]) -> str:
    """Return the matrix of one data set as text: rho, and its interval below."""
    pairs = {(pair["a"], pair["b"]): pair for pair in result["pairs"]}
    names = list(result["placed"])
    width = max(map(len, names))
    lines = [" " * width + "".join(f"  {name[:14]:>16}" for name in names[:-1])]
    for i, b in enumerate(names[1:], start=1):
        cells = [pairs[a, b] for a in names[:i]]
        lines.append(f"{b:<{width}}" + "".join(f"  {pair['rho']:>+16.2f}" for pair in cells))
        spans = (f"[{pair['low']:+.2f}, {pair['high']:+.2f}]" for pair in cells)
        lines.append(" " * width + "".join(f"  {span:>16}" for span in spans))
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--sets", default=",".join(FILES))
    parser.add_argument("--methods", default=",".join(DEFAULT), help="those that are not installed are left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rank_correlations.json")
    options = parser.parse_args()
    asked = [name for name in options.methods.split(",") if METHODS[name][0] in available()]
    sets = {}
    for name in options.sets.split(","):
        sets[name] = measure(name, options.data, options.rows, asked)
        print(table(sets[name]), flush=True)
    result = {
        "command": f"python benchmarks/rank_correlations.py --data PATH --rows {options.rows}",
        "machine": machine("torch", "transformers"),
        "model": "thresher/tiny-llama",
        "sets": sets,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
