"""Feature-based functions and maximum coverage, against brute force."""

import tracemalloc

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.features import make_context
from thresher.features.container import Features
from thresher.features.ngram import MAX_DISTINCT, NGRAM, Ngram, ngram_counts
from thresher.selectors.feature_based import FeatureBased
from thresher.selectors.max_coverage import MaxCoverage


def packed(counts):
    """Return dense counts (n, m) as the feature."""
    found = np.empty(counts.shape, NGRAM)
    found["bucket"], found["count"] = np.where(counts > 0, np.arange(counts.shape[1]) * 7, -1), counts
    return found


def build(counts, existing=None):
    context = {} if existing is None else {"existing_ngram": packed(existing)}
    ids = pl.Series([f"{i:06d}" for i in range(len(counts))])
    return Features(row_id=ids, arrays={"ngram": packed(counts)}, context=context)


def plain_greedy(counts, k, value, existing=None):
    begun = np.zeros(counts.shape[1]) if existing is None else existing.sum(axis=0)
    picks, values, now = [], [], value(begun)
    for _ in range(k):
        rest = [j for j in range(len(counts)) if j not in picks]
        gain = np.array([value(begun + counts[[*picks, j]].sum(axis=0)) for j in rest])
        picks.append(rest[np.flatnonzero(gain >= gain.max() - 1e-9)[0]])
        values.append(value(begun + counts[picks].sum(axis=0)) - now)
    return picks, values


def random_counts(n=30, m=25, seed=0):
    rng = np.random.default_rng(seed)
    return rng.poisson(0.4, (n, m)) * rng.integers(1, 4, (n, m))


def test_the_words_of_many_rows_take_little_more_room_than_the_array(monkeypatch):
    """Counts were pairs of Python numbers until the last row: eight times the array."""
    rows = th.load([{"text": " ".join(f"w{i * 7 + j}" for j in range(100))} for i in range(1500)])
    monkeypatch.setattr("thresher.features.ngram.BATCH_ROWS", 50)
    tracemalloc.start()
    values = Ngram().compute(rows, make_context(cache=None)).values
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * values.nbytes


CASES = [
    (FeatureBased(), lambda total: np.sqrt(total).sum()),
    (FeatureBased(concave="log"), lambda total: np.log1p(total).sum()),
    (MaxCoverage(), lambda total: np.minimum(total, 1).sum()),
    (MaxCoverage(times=3), lambda total: np.minimum(total, 3).sum()),
]


@pytest.mark.parametrize(("selector", "value"), CASES)
@pytest.mark.parametrize("with_existing", [False, True])
def test_objective_equals_plain_greedy(selector, value, with_existing):
    counts = random_counts()
    existing = random_counts(4, seed=9) if with_existing else None
    picks, values = plain_greedy(counts, 12, value, existing)
    found = selector.score(build(counts, existing), n_ranked=12, rng=np.random.default_rng(0))
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-12)


@pytest.mark.parametrize("selector", [FeatureBased(), MaxCoverage()])
def test_duplicates_are_never_picked_twice(selector):
    counts = np.repeat(random_counts(5), 8, axis=0)
    found = selector.score(build(counts), n_ranked=40, rng=np.random.default_rng(0))
    assert sorted(found.ranking().tolist()) == list(range(40))


@pytest.mark.parametrize("selector", [FeatureBased(), MaxCoverage()])
def test_ranking_for_k_is_a_prefix_of_the_ranking_for_all(selector):
    data = build(random_counts())
    longest, short = (selector.score(data, n_ranked=k, rng=np.random.default_rng(0)).ranking() for k in (30, 9))
    assert short.tolist() == longest[:9].tolist()


def test_topics_take_turns():
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(4), [30, 10, 5, 5], axis=0) + 0.01 * rng.standard_normal((50, 4))
    data = Features(row_id=pl.Series([f"{i:02d}" for i in range(50)]), arrays={"embedding": x.astype(np.float32)})
    group = np.repeat(np.arange(4), [30, 10, 5, 5])
    found = FeatureBased(counts="topic", n_topics=4).score(data, n_ranked=8, rng=np.random.default_rng(0))
    assert sorted(group[found.ranking()].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_ngrams_are_words_and_pairs_in_lower_case():
    assert sum(ngram_counts("Red shirt, red SHIRT").values()) == 4 + 3
    assert ngram_counts("Red shirt") == ngram_counts("red SHIRT!")
    assert max(ngram_counts("red red red").values()) == 3
    assert not ngram_counts("")


def test_the_feature_counts_what_it_cuts_and_depends_on_the_row_alone():
    long = " ".join(f"w{i}" for i in range(MAX_DISTINCT))
    rows = [{"text": "red shirt", "label": "a"}, {"text": long, "label": "b"}]
    found = Ngram().compute(th.load(rows), make_context(cache=None))
    assert found.notes == {"n_rows_cut": 1}
    assert (found.values["bucket"] >= 0).sum(axis=1).tolist() == [3, MAX_DISTINCT]
    alone = Ngram().compute(th.load(rows[:1]), make_context(cache=None))
    assert alone.values[0].tolist() == found.values[0][:3].tolist()


def test_select_finds_the_rows_with_new_words():
    rows = [{"text": f"red shirt size {i % 3}", "label": "x"} for i in range(20)]
    rows += [{"text": "a treatise on the migration of birds in late autumn", "label": "x"}]
    for method in ("feature-based", "max-coverage"):
        subset = th.select(rows, method, budget=1)
        assert "birds" in subset.rows[0]["text"]


@pytest.mark.parametrize("selector", [FeatureBased(), MaxCoverage()])
@pytest.mark.parametrize("n_features", [0, 3])
def test_rows_without_any_count_are_ranked_from_the_lowest(selector, n_features):
    found = selector.score(build(np.zeros((5, n_features), int)), n_ranked=4, rng=np.random.default_rng(0))
    assert found.ranking().tolist() == [0, 1, 2, 3]
    assert found.objective.tolist() == [0, 0, 0, 0]
