"""DELIFT with few examples and a prefix cache against all pairs: tokens read, and objective.

    OMP_NUM_THREADS=1 python benchmarks/delift.py --data train.jsonl \
        [--rows 1000] [--neighbors 64] [--model FOLDER]
        [--columns prompt=text,response=attributes] [--dtype bfloat16] [--cache FOLDER]

Tokens that the model reads, padding not counted:

- tried: as `delift` runs by default: each row with itself and some others, each example's prefix
  kept.
- all, kept: all pairs, each example's prefix kept.
- all pairs: all pairs as the official script reads them, example and row together each time.
  Counted, not run.

The objective of a stage is evaluated on the kernel of all pairs, clipped at 0, for the picks of the
kernel of the tried examples, of as many nearest ones instead, of the embedding kernel and of random
rows (mean of 10 draws), as a share of the objective of the exact picks. Target and existing rows
are other rows of the same file. Without --model it is the toy `tiny`. A --cache keeps finished
pairs, so that a killed run goes on; tokens are then counted and not read, and the seconds are only
those of what was left to do.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import machine

import thresher as th
from thresher.features import FeatureCache, compute, make_context
from thresher.features.container import Features
from thresher.features.context import N_EXAMPLES
from thresher.features.utility.example_pairs import nearest_examples
from thresher.features.utility.in_context_utility import NAME, _Pairs, _Queries
from thresher.models.causal_lm.language_model import language_model
from thresher.selectors.delift import Delift

RESULT = Path(__file__).parent / "results" / "delift.json"
SHARES = (0.05, 0.1, 0.3)
N_BESIDE = 20


def kernel(pairs):
    """Return (n, m) of utilities of all m examples, clipped at 0, from what the feature gives."""
    full = np.zeros(pairs.shape)
    np.put_along_axis(full, pairs["example"], np.maximum(pairs["utility"], 0), axis=1)
    return full


def objective(s, picks, cap, floor):
    """Return f of some picks on a dense kernel."""
    best = np.minimum(s[:, picks].max(axis=1), cap)
    return float(np.maximum(best - floor, 0).sum())


def ranking(features, beside, **settings):
    """Return delift's picks, best first."""
    data = Features(
        row_id=features.row_id,
        arrays=dict(features),
        context=beside,
        missing={"in_context_utility": features.missing["in_context_utility"]},
    )
    scores = Delift(**settings).score(data, n_ranked=features.n_rows, rng=np.random.default_rng(0))
    return scores.ranking()


def tokens_of_all_pairs(pool, lm, limit):
    """Return the tokens of all pairs when every example is read again with every row."""
    rows = _Queries.from_rows(pool, lm, limit)
    asked = _Pairs(lm, rows, pool, limit, make_context(cache=None))
    prefixes = [len(ids) for ids in asked._prefixes(np.arange(len(pool)))]
    read = np.array([row.n_read for row in rows.rows])
    return int(len(pool) * read.sum() + len(pool) * sum(prefixes[1:]) + read.sum() + len(pool) * prefixes[0])


def tokens_with_prefixes_kept(pool, lm, limit, tried):
    """Return the tokens of rows alone and of the examples in `tried` (n, m), each read once."""
    asked = _Pairs(lm, _Queries.from_rows(pool, lm, limit), pool, limit, make_context(cache=None))
    prefixes = np.array([len(ids) for ids in asked._prefixes(np.arange(len(pool)))])
    read = np.array([row.n_read for row in asked.pool.rows])
    again = 0 if tried.shape[1] == len(pool) else prefixes[1:][np.unique(tried[:, -(tried.shape[1] // 2) :])].sum()
    return int(prefixes.sum() + again + read.sum() * (1 + tried.shape[1]))


def nearest_alone(features, n_neighbors):
    """Return the features with the nearest examples alone, taken from those of all pairs."""
    x = features["embedding"]
    tried = nearest_examples(x, x, min(n_neighbors + 1, len(x)), is_own=True)
    every = np.zeros(features["in_context_utility"].shape)
    np.put_along_axis(
        every, features["in_context_utility"]["example"], features["in_context_utility"]["utility"], axis=1
    )
    few = np.empty(tried.shape, features["in_context_utility"].dtype)
    few["example"], few["utility"] = tried, np.take_along_axis(every, tried, axis=1)
    arrays = {**features, "in_context_utility": few}
    return Features(row_id=features.row_id, arrays=arrays, missing=features.missing)


def measure(pool, beside, lm, context, n_neighbors):
    """Return tokens and seconds of each way, and the shares of the objective."""
    tokens, seconds, features = {}, {}, {}
    limit = int(lm.max_positions) // 2
    for name, n_examples in (("tried", n_neighbors), ("all, kept", None)):
        began = time.process_time()
        features[name] = compute(pool, {"in_context_utility", "embedding"}, replace(context, n_examples=n_examples))
        seconds[name] = time.process_time() - began
        tokens[name] = tokens_with_prefixes_kept(pool, lm, limit, features[name]["in_context_utility"]["example"])
    tokens["all pairs"] = tokens_of_all_pairs(pool, lm, limit)
    nearest = nearest_alone(features["all, kept"], n_neighbors)
    full = kernel(features["all, kept"]["in_context_utility"])
    n, rng = len(pool), np.random.default_rng(0)
    shares = []
    of_beside = compute(pool, {NAME}, replace(context, examples=beside, n_examples=None))[NAME]
    for stage, roles in (("instruction tuning", ()), ("task-specific", ("target",)), ("continual", ("existing",))):
        context_of = {f"{role}_in_context_utility": of_beside for role in roles}
        most = kernel(of_beside).max(axis=1)
        cap = most if stage == "task-specific" else np.full(n, np.inf)
        floor = most if stage == "continual" else np.zeros(n)
        embedding = {f"{role}_embedding": compute(beside, {"embedding"}, context)["embedding"] for role in roles}
        order = {
            "exact": ranking(features["all, kept"], context_of),
            "tried": ranking(features["tried"], context_of),
            "nearest": ranking(nearest, context_of),
            "embedding": ranking(features["tried"], embedding, kernel="embedding", neighbors="all"),
        }
        for share in SHARES:
            k = max(1, round(share * n))
            best = objective(full, order["exact"][:k], cap, floor)
            of = {name: objective(full, picks[:k], cap, floor) / best for name, picks in order.items()}
            draws = [objective(full, rng.choice(n, k, replace=False), cap, floor) / best for _ in range(10)]
            shares.append({"stage": stage, "n_picks": k, **of, "random": float(np.mean(draws))})
    return {"tokens": tokens, "seconds": seconds, "objective": shares}


def main():
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--neighbors", type=int, default=N_EXAMPLES)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--columns", help="as --map of the command: prompt=COLUMN,response=COLUMN")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--cache", type=Path, help="not set: nothing is kept")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    columns = None if options.columns is None else dict(pair.split("=") for pair in options.columns.split(","))
    every = th.load(options.data, columns=columns)
    chosen = np.random.default_rng(0).permutation(len(every))[: options.rows + N_BESIDE]
    pool, beside = every.take(np.sort(chosen[: options.rows])), every.take(np.sort(chosen[options.rows :]))
    lm = language_model(options.model, device=options.device, dtype=options.dtype)
    cache = None if options.cache is None else FeatureCache(options.cache)
    context = make_context(
        model=options.model, device=options.device, dtype=options.dtype, encoder="static", cache=cache
    )
    result = {
        "rows": len(pool),
        "data": Path(options.data).name,
        "columns": options.columns,
        "model": lm.name,
        "dtype": lm.dtype,
        "neighbors": options.neighbors,
        **measure(pool, beside, lm, context, options.neighbors),
        "machine": machine("torch", "transformers"),
    }
    tokens = result["tokens"]
    result["times_fewer_tokens"] = tokens["all pairs"] / tokens["tried"]
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: result[name] for name in ("tokens", "seconds", "times_fewer_tokens")}, indent=2))
    for line in result["objective"]:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()})


if __name__ == "__main__":
    main()
