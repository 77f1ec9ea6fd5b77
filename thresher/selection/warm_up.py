"""Compiling kernels ahead of time: numba keeps them on the disk, beside the source."""

from __future__ import annotations

# methods and settings whose kernels the first commands need: dense and sparse coverage, distances
CALLS = (
    ("facility-location", {"kernel": "dense"}),
    ("facility-location", {"kernel": "sparse"}),
    ("k-center", None),
)
N_ROWS = 200


def compile_kernels() -> None:
    """Choose from a few made-up rows by the usual methods, so that what they need is compiled."""
    from thresher.dataset import load
    from thresher.selection.run import select

    rows = load([{"prompt": f"Question {i} of {i % 7} things?", "response": f"Answer {i * i}."} for i in range(N_ROWS)])
    for method, settings in CALLS:
        select(rows, method, budget=20, settings=settings, encoder="static", device="cpu")
