"""Precision and recall of each curation rule on the faults planted in the product listings.

    python benchmarks/curation.py

Each rule runs alone on the whole training part. A dropped row is right when it belongs to a fault
that the rule is for; a row dropped as a duplicate must also name a row of the same product. A fault
counts as found when all but one of its rows are gone (duplicates), or the planted row is (leaks,
wrong labels), or the contradiction is (conflicts).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from machine import machine

import thresher as th
from thresher.curation.pipeline import apply_rules
from thresher.curation.rule import Rule, create
from thresher.features import make_context

ROOT = Path(__file__).parents[1]
TRAIN, TEST = ROOT / "data/products/train.jsonl", ROOT / "data/products/test.jsonl"
RESULTS = ROOT / "benchmarks/results/curation.json"
COPIES = {
    "exact-duplicates": ["exact-duplicate"],
    "near-duplicates": ["exact-duplicate", "near-duplicate"],
    "semantic-duplicates": ["exact-duplicate", "near-duplicate", "semantic-duplicate"],
}
OTHERS = {
    "contamination": ["leak"],
    "conflicts": ["conflict"],
    "label-issues": ["wrong-label", "conflict"],
}


@dataclass(frozen=True)
class Score:
    """How many rows a rule dropped, and how many of them rightly."""

    rule: str
    settings: dict
    dropped: int
    precision: float
    planted: int
    recall: float
    seconds: float


def _truth() -> pl.DataFrame:
    """Return one row per training row: its fault, and the product that it tells of."""
    rows = pl.read_ndjson(TRAIN).select("listing_id", "planted", "planted_of", "label", "true_label")
    product = pl.when(pl.col("planted_of") == "").then("listing_id").otherwise("planted_of")
    return rows.with_columns(product=product)


def score_copies(rule: Rule, truth: pl.DataFrame, dropped: pl.DataFrame, seconds: float, **settings) -> Score:
    product = dict(zip(truth["listing_id"], truth["product"], strict=True))
    planted = truth.filter(pl.col("planted").is_in(COPIES[rule.name]))
    in_fault = set(planted["listing_id"]) | set(planted["planted_of"])
    pairs = dropped.select("row_id", "duplicate_of").rows()
    right = sum(a in in_fault and b in in_fault and product[a] == product[b] for a, b in pairs)
    gone = {a for a, _ in pairs}
    named = {frozenset(pair) for pair in pairs}
    last = COPIES[rule.name][-1]
    originals = planted.filter(pl.col("planted") == last)
    n_recovered = sum(
        a in gone or frozenset((a, b)) in named for a, b in originals.select("listing_id", "planted_of").iter_rows()
    )
    return Score(
        rule=rule.name, settings=settings, dropped=len(pairs), precision=right / max(len(pairs), 1),
        planted=originals.height, recall=n_recovered / originals.height, seconds=round(seconds, 2),
    )  # fmt: skip


def score_others(rule: Rule, truth: pl.DataFrame, dropped: pl.DataFrame, seconds: float, **settings) -> Score:
    planted = truth.filter(pl.col("planted").is_in(OTHERS[rule.name]))
    right = set(planted["listing_id"])
    if rule.name == "conflicts":  # either side of a contradiction is a right one to drop
        right |= set(planted["planted_of"])
    gone = set(dropped["row_id"])
    sides = planted.select("listing_id", "planted_of").iter_rows()
    is_recovered = [a in gone or (rule.name == "conflicts" and b in gone) for a, b in sides]
    return Score(
        rule=rule.name, settings=settings, dropped=len(gone), precision=len(gone & right) / max(len(gone), 1),
        planted=planted.height, recall=sum(is_recovered) / planted.height, seconds=round(seconds, 2),
    )  # fmt: skip


def measure(name: str, *, encoder: str = "static", **settings) -> Score:
    pool, test = th.load(TRAIN, id_column="listing_id"), th.load(TEST, id_column="listing_id")
    rule = create(name, settings)
    started = time.perf_counter()
    dropped = apply_rules(pool, [rule], eval=test, context=make_context(encoder=encoder, cache=None)).dropped
    seconds = time.perf_counter() - started
    score = score_copies if name in COPIES else score_others
    is_embedded = bool({"embedding", "class_probability"} & rule.requirements.features)
    shown = settings | ({"encoder": encoder} if is_embedded else {})
    return score(rule, _truth(), dropped, seconds, **shown)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    runs = [
        measure("exact-duplicates"),
        *(measure("near-duplicates", threshold=threshold) for threshold in (0.6, 0.7, 0.8, 0.9)),
        *(measure("semantic-duplicates", threshold=threshold) for threshold in (0.8, 0.85, 0.9)),
        measure("contamination"),
        measure("contamination", cosine=0.95),
        measure("conflicts"),
        measure("label-issues"),
        measure("label-issues", by="confident-learning"),
    ]
    for run in runs:
        settings = " ".join(f"{name}={value}" for name, value in run.settings.items())
        print(
            f"{run.rule:<20} {settings:<32} dropped {run.dropped:>5}  precision {run.precision:.3f}  "
            f"recall {run.recall:.3f} of {run.planted:>3}  {run.seconds:5.1f} s"
        )
    RESULTS.write_text(
        json.dumps({"machine": machine("polars", "rensa", "faiss-cpu"), "runs": [vars(run) for run in runs]}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
