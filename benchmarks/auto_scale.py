"""How long does `auto` take, and in what? Labeled pools of growing size.

    python benchmarks/auto_scale.py --rows 10000,1000000

Rows are made of the 5,000 embedded product listings (24 classes): each takes half of its words from
a listing and half from another one of the same class, and a number, so that no two are equal. 10 %
are chosen; one process, no cache of features. Bars on two cores: 10,000 rows in 60 s, 1,000,000 in
600 s, with embeddings made. Seconds on the clock depend on what else the machine does, so processor
seconds stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

RESULT = Path(__file__).parent / "results/auto_scale.json"


def make_rows(n: int) -> pl.DataFrame:
    """Return n labeled rows, no two of them equal."""
    listings = pl.read_ndjson(Path(__file__).parents[1] / "data/products/train.jsonl").select("text", "label")
    rng = np.random.default_rng(0)
    by_label = {label: rows["text"].to_list() for (label,), rows in listings.group_by("label")}
    labels = listings["label"].to_numpy()[rng.integers(len(listings), size=n)]
    texts = []
    for i, label in enumerate(labels):
        first, second = (by_label[label][at].split() for at in rng.integers(len(by_label[label]), size=2))
        texts.append(" ".join([*first[: len(first) // 2], *second[len(second) // 2 :], str(i)]))
    return pl.DataFrame({"text": texts, "label": labels})


def measure(n: int) -> dict:
    """Return seconds of a selection by `auto`, on the clock and of the processor."""
    import thresher as th

    pool = th.load(make_rows(n))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["THRESHER_CACHE"] = cache
        from thresher.features import FeatureContext, compute
        from thresher.models.settings import ModelSettings

        began, cpu = time.monotonic(), time.process_time()
        compute(pool, {"embedding"}, FeatureContext(models=ModelSettings(encoder="static")).resolved())
        embedded, embedded_cpu = time.monotonic(), time.process_time()
        subset = th.select(pool, budget="10%", encoder="static")
        done, done_cpu = time.monotonic(), time.process_time()
    content = subset.manifest.content
    return {
        "rows": n,
        "chosen": content["pilot"]["chosen"],
        "why": content["pilot"]["why"],
        "embedding": {"seconds": embedded - began, "cpu_seconds": embedded_cpu - cpu},
        "auto": {"seconds": done - embedded, "cpu_seconds": done_cpu - embedded_cpu},
        "manifest_seconds": content["run"]["seconds"],
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,1000000")
    options = parser.parse_args()
    known = json.loads(RESULT.read_text())["entries"] if RESULT.is_file() else []
    for n in map(int, options.rows.split(",")):
        entry = measure(n)
        print(entry, flush=True)
        known = sorted([entry, *(each for each in known if each["rows"] != n)], key=lambda each: each["rows"])
        RESULT.write_text(json.dumps({"machine": machine("scikit-learn"), "entries": known}, indent=1) + "\n")


if __name__ == "__main__":
    main()
