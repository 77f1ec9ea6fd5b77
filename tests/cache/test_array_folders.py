"""Neighbor graphs are kept: another budget or method reads what the first one computed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cache.array_folders import ArrayFolders
from thresher.numeric.array_store import StoredArrays
from thresher.selectors.neighbors import search

WORDS = [f"word{i}" for i in range(60)]


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 12)) for _ in range(200)]
    return th.load(pl.DataFrame({"text": texts, "label": ["a", "b"] * 100}))


@pytest.fixture
def n_searches(monkeypatch, tmp_path):
    """Count the searches for neighbors, with an empty cache."""
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    calls = []
    exact = search._nearest_of_all

    def counted(unit, k):
        calls.append(k)
        return exact(unit, k)

    monkeypatch.setattr(search, "_nearest_of_all", counted)
    return calls


def choose(pool, method="facility-location", budget=20, **settings):
    options = {"kernel": "sparse", "n_neighbors": 10, **settings}
    return th.select(pool, method, budget=budget, encoder="static", settings=options)


@pytest.mark.parametrize("method", ["facility-location", "saturated-coverage", "graph-cut"])
def test_another_budget_or_method_reads_the_graph_and_chooses_the_same_rows(pool, n_searches, method):
    choose(pool, budget=10)
    again = choose(pool, method, budget=40)
    assert len(n_searches) == 1
    ArrayFolders().prune(max_bytes=0)
    fresh = choose(pool, method, budget=40)
    assert len(n_searches) == 2
    assert again.scores.value.tolist() == fresh.scores.value.tolist()
    assert again.kept.tolist() == fresh.kept.tolist()


def test_other_rows_and_other_neighbors_get_a_graph_of_their_own(pool, n_searches):
    choose(pool)
    choose(pool, n_neighbors=11)
    choose(pool.take(range(199)))
    assert len(n_searches) == 3


def test_a_damaged_graph_is_reported_and_computed_again(pool, n_searches):
    first = choose(pool)
    (path,) = ArrayFolders().root.glob("*/similarity.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told = []
    second = th.select(
        pool,
        "facility-location",
        budget=20,
        encoder="static",
        settings={"kernel": "sparse", "n_neighbors": 10},
        on_progress=lambda progress: told.append(progress.note or ""),
    )
    assert len(n_searches) == 2
    assert any("similarity.npy" in note and "computed again" in note for note in told)
    assert second.kept.tolist() == first.kept.tolist()


def test_what_is_read_may_be_changed(tmp_path):
    def compute():
        return StoredArrays({"x": np.arange(3)}, {"fact": 1.5})

    for _ in range(2):  # the first computes, the second reads
        stored = ArrayFolders(tmp_path).load_or_compute({"what": "numbers"}, compute)
        assert (stored.arrays["x"].tolist(), stored.facts) == ([0, 1, 2], {"fact": 1.5})
        stored.arrays["x"][:] = 7
