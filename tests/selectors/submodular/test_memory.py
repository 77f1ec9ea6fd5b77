"""The memory plan: made before anything is allocated, from numbers alone."""

import re

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features.container import Features
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.neighbors import inverted_lists
from thresher.selectors.submodular import kernels, memory
from thresher.selectors.submodular.memory import KernelSettings, plan_memory


def settings(kernel="auto", n_neighbors=64, max_kernel_gb=2.0):
    return KernelSettings("facility-location", kernel, n_neighbors, max_kernel_gb)


def test_dense_where_it_fits_and_sparse_beyond(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 16 * 10**9)
    assert plan_memory(settings(), 5_000, 384).kernel == "dense"
    assert plan_memory(settings(), 22_360, 384).kernel == "dense"
    assert plan_memory(settings(), 22_361, 384).kernel == "sparse"
    assert plan_memory(settings(kernel="sparse"), 100, 8).kernel == "sparse"


def test_bytes_of_the_plan():
    assert plan_memory(settings(), 5_000, 384).n_bytes == 4 * 5_000**2 + 8 * 5_000 * 384
    large = plan_memory(settings(), 52_000, 384).n_bytes
    assert large < 3e9 / 2
    # memory grows with n, not with its square
    assert plan_memory(settings(), 104_000, 384).n_bytes < 2 * large
    assert memory.SEARCH_ROW_BYTES == 2 * 4 * inverted_lists.N_NEAR
    assert memory.SEARCHED_ROWS == inverted_lists.BLOCK_ROWS


def test_little_memory_makes_it_sparse_and_less_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 60 * 10**6)
    assert plan_memory(settings(), 5_000, 384).kernel == "sparse"
    with pytest.raises(InputError, match=r"needs 0.1 GB and 0.1 GB are free; set kernel to 'sparse'"):
        plan_memory(settings(kernel="dense"), 5_000, 384)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**6)
    with pytest.raises(InputError, match="a graph of 64 neighbors of 5,000 rows needs .* lower n_neighbors"):
        plan_memory(settings(), 5_000, 384)


def test_nothing_is_allocated_for_a_plan_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**4)
    monkeypatch.setattr(kernels, "build_kernel", lambda *_: pytest.fail("the kernel was computed"))
    x = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    data = Features(row_id=pl.Series([f"{i:03d}" for i in range(200)]), arrays={"embedding": x})
    with pytest.raises(InputError, match="GB are free"):
        FacilityLocation().score(data, n_ranked=5, rng=np.random.default_rng(0))


def test_unknown_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert plan_memory(settings(), 10**7, 384).kernel == "sparse"


@pytest.mark.parametrize(("kernel", "n_pairs"), [("dense", 400**2), ("sparse", None)])
def test_the_number_of_pairs_that_are_visited_stays_what_it_is(kernel, n_pairs):
    """A guard against slow code: counts, not clocks. Plain greedy visits k n^2 = 40 n^2 pairs."""
    x = np.random.default_rng(0).standard_normal((400, 24)).astype(np.float32)
    data = Features(row_id=pl.Series([f"{i:03d}" for i in range(400)]), arrays={"embedding": x})
    notes = FacilityLocation(kernel=kernel, n_neighbors=16).score(data, n_ranked=40, rng=np.random.default_rng(0)).notes
    if kernel == "dense":
        assert notes["n_pairs"] == n_pairs
        assert notes["n_pair_updates"] < (1.5 + np.log(40)) * n_pairs
    else:
        assert notes["n_pair_updates"] < 6 * notes["n_pairs"]


@pytest.mark.parametrize("method", ["facility-location", "saturated-coverage", "quality-diversity", "graph-cut"])
def test_the_plan_is_told_before_the_picks_are_made(method):
    rows = [{"text": f"red shirt {i}", "label": "x", "score": i} for i in range(40)]
    told = []
    subset = th.select(rows, method, budget=5, encoder="static", on_progress=told.append)
    (note,) = [event.note for event in told if event.stage == "select"]
    assert re.match(rf"{method}: all pairs of 40 distinct rows, about \d+\.\d [kM]B; ", note)
    assert note.endswith("exact greedy: every prefix has at least 1 - 1/e of the largest objective")
    assert subset.manifest.content["notes"]["guarantee"] in note
    assert subset.manifest.content["notes"]["planned_bytes"] > 0
