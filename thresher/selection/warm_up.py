"""Compiling kernels ahead of time: numba keeps them on the disk, beside the source."""

from __future__ import annotations

import numpy as np

# methods and settings whose kernels the first commands need: dense and sparse coverage, distances
CALLS = (
    ("facility-location", {"kernel": "dense"}),
    ("facility-location", {"kernel": "sparse"}),
    ("k-center", None),
    ("delift", {"kernel": "embedding"}),
)
N_ROWS = 2200  # of fewer, all pairs are compared without compiled loops
N_LINES = 300_000  # of a table that is too large for the interpreter


def compile_kernels() -> None:
    """Read, clean and choose from made-up rows, so that what commands need is compiled."""
    from thresher.curation.curate import curate
    from thresher.dataset import load
    from thresher.dataset.formats.csv_spans import CsvScanner
    from thresher.features import compute, make_context
    from thresher.selectors import create
    from thresher.selectors.nested import rank_rows

    CsvScanner(",").feed(b"a,b\n" * N_LINES)
    rows = load([{"prompt": f"Question {i} of {i % 7} things?", "response": f"Answer {i * i}."} for i in range(N_ROWS)])
    curate(rows, eval=load([{"prompt": f"Question {i}?", "response": f"{i}."} for i in range(3)]))
    # without a store: what is read from one needs no kernel
    features = compute(rows, ["embedding"], make_context(encoder="static", device="cpu").resolved())
    for method, settings in CALLS:
        rank_rows(create(method, settings), features, n_ranked=20, rng=np.random.default_rng(0), plan=None)
