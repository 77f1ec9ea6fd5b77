"""Does choosing rows beat random rows on Banking77? 10 % of the rows, equal steps, several seeds.

    python benchmarks/banking77.py --data PATH/banking77   # train.csv and test.csv: text,category

`compare` does the work: for each method and seed, 10 % of the training set are chosen and MiniLM +
LoRA is trained on them for as many optimizer steps, then measured on the whole test set. Finished
cells are stored, so a killed run continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from machine import machine

import thresher as th

METHODS = "random,stratified,k-center,facility-location"


def main() -> None:
    """Compare, print the table, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "banking77.json")
    options = parser.parse_args()
    comparison = th.compare(
        options.data / "train.csv",
        eval=th.load(options.data / "test.csv"),
        methods=options.methods,
        budget=options.budget,
        seeds=options.seeds,
        encoder="minilm",
        overlap="drop",
        workers=options.workers,
        on_progress=lambda event: print(event.note, flush=True) if event.note else None,
    )
    print(comparison)
    result = {
        "command": " ".join(["python benchmarks/banking77.py --data PATH/banking77", *_strip_data_path(sys.argv[1:])]),
        "machine": machine(),
        **comparison.content,
        "pool_rows": comparison.manifest.content["pool"]["rows"],
        "test_rows": comparison.manifest.content["test"]["rows"],
        "steps": sorted(set(comparison.cells["steps"])),
        "settings": comparison.manifest.content["settings"],
        "cells": comparison.cells.select("method", "seed", "value", "stderr", "loss").to_dicts(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def _strip_data_path(arguments: list[str]) -> list[str]:
    """Return the arguments without the path of the data."""
    at = arguments.index("--data")
    return arguments[:at] + arguments[at + 2 :]


if __name__ == "__main__":
    main()
