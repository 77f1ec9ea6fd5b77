"""Rankings that go further than asked, kept and cut: what a run of that budget alone gives."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from thresher.cache.array_folders import ArrayFolders
from thresher.features.container import Features
from thresher.selectors import create
from thresher.selectors.contract import score_rows
from thresher.selectors.neighbors import search
from thresher.selectors.nested import KEPT_ROWS, NestedSelector, rank_rows

# notes that are of the whole ranking, which goes further than the budget
OF_WHOLE = {"n_pair_updates"}
N = KEPT_ROWS + 200
METHODS = [
    (name, {"kernel": kernel, "n_neighbors": 8, **more})
    for name, more in (
        ("facility-location", {}),
        ("saturated-coverage", {}),
        ("saturated-coverage", {"saturation": 0.01}),
        ("quality-diversity", {"quality": "q"}),
        ("quality-diversity", {"quality": "q", "alpha": 1.0}),
        ("facility-location", {"optimizer": "stochastic"}),
    )
    for kernel in ("dense", "sparse")
]


@pytest.fixture(scope="module")
def features():
    """Rows in clusters, some equal, some without a quality, beside existing ones."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 12))[rng.integers(40, size=N)] + 0.5 * rng.standard_normal((N, 12))
    x[rng.integers(N, size=150)] = x[rng.integers(N, size=150)]
    quality = rng.random(N)
    quality[:30] = np.nan
    ids = pl.Series([f"{i:06d}" for i in range(N)])
    return Features(
        row_id=ids,
        arrays={"embedding": x.astype(np.float32), "number:q": quality, "weight": 1.0 + rng.integers(3, size=N)},
        context={"existing_embedding": rng.standard_normal((5, 12)).astype(np.float32)},
        missing={"number:q": pl.Series(["empty"] * 30 + [None] * (N - 30), dtype=pl.String)},
    )


def assert_equal(found, wanted):
    assert found.row_id.equals(wanted.row_id)
    assert found.by == wanted.by
    for name in ("value", "covered_by", "similarity", "objective"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
        assert getattr(found, name).dtype == getattr(wanted, name).dtype, name
    assert (found.excluded is None) == (wanted.excluded is None)
    assert found.excluded is None or found.excluded.to_list() == wanted.excluded.to_list()
    kept = {name: note for name, note in (wanted.notes or {}).items() if name not in OF_WHOLE}
    assert {name: note for name, note in (found.notes or {}).items() if name not in OF_WHOLE} == kept


@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_each_budget_is_as_when_it_was_asked_for_alone(features, tmp_path, name, settings):
    selector = create(name, settings)
    told = []
    kept = dataclasses.replace(features, store=ArrayFolders(tmp_path, lambda progress: told.append(progress.note)))
    for n_ranked in (110, 1, 350, N // 4, 120, N):
        alone, rng = np.random.default_rng(3), np.random.default_rng(3)
        wanted = score_rows(selector, features, n_ranked=n_ranked, rng=alone)
        found = rank_rows(selector, kept, n_ranked=n_ranked, rng=rng, plan=None)
        assert_equal(found, wanted)
        assert rng.bit_generator.state == alone.bit_generator.state or selector.optimizer == "stochastic"
    if selector.optimizer == "lazy":  # a sixteenth, a quarter and all rows were ranked, once each
        assert told.count("ranking: read from the cache") == 3


def test_what_determines_a_ranking_is_in_its_key(features, tmp_path):
    told = []
    store = ArrayFolders(tmp_path, lambda progress: told.append(progress.note))
    calls = {
        "first": ("facility-location", {"n_neighbors": 8, "kernel": "sparse"}, features, 0, None),
        "settings": ("facility-location", {"n_neighbors": 9, "kernel": "sparse"}, features, 0, None),
        "method": ("saturated-coverage", {"n_neighbors": 8, "kernel": "sparse"}, features, 0, None),
        "seed": ("facility-location", {"n_neighbors": 8, "kernel": "sparse"}, features, 1, None),
        "plan": ("facility-location", {"n_neighbors": 8, "kernel": "sparse"}, features, 0, "another"),
        "existing": (
            "facility-location",
            {"n_neighbors": 8, "kernel": "sparse"},
            dataclasses.replace(features, context={}),
            0,
            None,
        ),
        "weight": (
            "facility-location",
            {"n_neighbors": 8, "kernel": "sparse"},
            dataclasses.replace(features, arrays={**features.arrays, "weight": np.ones(N)}),
            0,
            None,
        ),
    }
    for what, (name, settings, given, seed, plan) in calls.items():
        told.clear()
        given = dataclasses.replace(given, store=store)
        rng = np.random.default_rng(seed)
        rank_rows(create(name, settings), given, n_ranked=20, rng=rng, plan=plan)
        assert "ranking: read from the cache" not in told, what
    # a feature that the method does not look at
    told.clear()
    more = dataclasses.replace(features, arrays={**features.arrays, "length": np.ones(N, np.int64)}, store=store)
    first = create("facility-location", {"n_neighbors": 8, "kernel": "sparse"})
    rank_rows(first, more, n_ranked=30, rng=np.random.default_rng(0), plan=None)
    assert "ranking: read from the cache" in told


def test_another_neighbor_search_is_another_ranking(features, tmp_path, monkeypatch):
    told, found = [], []
    kept = dataclasses.replace(features, store=ArrayFolders(tmp_path, lambda progress: told.append(progress.note)))
    selector = create("facility-location", {"n_neighbors": 8, "kernel": "sparse"})
    for number in (1, 2, 2):
        told.clear()
        monkeypatch.setattr(search, "VERSION", number)
        rank_rows(selector, kept, n_ranked=20, rng=np.random.default_rng(0), plan=None)
        found.append("ranking: read from the cache" in told)
    assert found == [False, False, True]


class Forgetful(ArrayFolders):
    """Says that the longest ranking is there, and cannot read it."""

    def has_arrays(self, key):
        return key["n_ranked"] == N

    def load_or_compute(self, key, compute):
        stored = compute()
        assert key["what"] != "ranking" or len(stored.arrays["ranking"]) == key["n_ranked"]
        return stored


def test_a_ranking_goes_as_far_as_its_key_says(features, tmp_path):
    kept = dataclasses.replace(features, store=Forgetful(tmp_path))
    selector = create("facility-location", {"n_neighbors": 8, "kernel": "sparse"})
    rank_rows(selector, kept, n_ranked=20, rng=np.random.default_rng(0), plan=None)


def test_few_rows_and_methods_that_are_not_nested_are_ranked_anew(features, tmp_path):
    arrays = {"embedding": features["embedding"][:500]}
    few = Features(row_id=features.row_id[:500], arrays=arrays, store=ArrayFolders(tmp_path))
    scores = rank_rows(create("facility-location"), few, n_ranked=20, rng=np.random.default_rng(0), plan=None)
    assert_equal(scores, score_rows(create("facility-location"), few, n_ranked=20, rng=np.random.default_rng(0)))
    assert not isinstance(create("uncertainty-coverage"), NestedSelector)
    kept = dataclasses.replace(features, store=ArrayFolders(tmp_path))
    rank_rows(create("herding"), kept, n_ranked=20, rng=np.random.default_rng(0), plan=None)
    assert not list(tmp_path.rglob("manifest.json"))
