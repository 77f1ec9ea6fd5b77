"""Quality and diversity against a plain greedy in float64, facility location, and brute force."""

import itertools

import numpy as np
import polars as pl
import pytest

import thresher as th
from tests.selectors.embeddings import clipped_cosines
from thresher.errors import InputError, NotFoundError
from thresher.features.container import Features
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.quality_diversity import QualityDiversity
from thresher.selectors.submodular.dense_kernel import _find_first_equal

EMPTY = "its column 'score' holds no number"


def build(x, quality, *, missing=None, existing=None):
    n = len(x)
    reasons = pl.Series([None] * n if missing is None else missing, dtype=pl.String)
    return Features(
        row_id=pl.Series([f"{i:06d}" for i in range(n)]),
        arrays={"embedding": np.asarray(x, np.float32), "number:score": np.asarray(quality, np.float64)},
        missing={"number:score": reasons},
        context={} if existing is None else {"existing_embedding": np.asarray(existing, np.float32)},
    )


def run(data, n_ranked, **settings):
    return QualityDiversity(**settings).score(data, n_ranked=n_ranked, rng=np.random.default_rng(0))


def blended(similarity, q, alpha, picks, floor):
    """Return F of some picks."""
    covered = np.maximum(similarity[:, picks].max(axis=1, initial=0), floor) - floor
    reach = np.maximum(similarity.max(axis=1) - floor, 0).sum()
    return (1 - alpha) * covered.sum() / reach + alpha * q[picks].sum() / np.nansum(q)


def plain_greedy(similarity, q, alpha, k, floor=0.0):
    """Greedy as in the textbook, in float64; ties to the lowest row."""
    floor = np.broadcast_to(np.float64(floor), len(similarity))
    reach = np.maximum(similarity.max(axis=1) - floor, 0).sum()
    best, picks, values = floor.copy(), [], []
    for _ in range(k):
        gain = (1 - alpha) * np.maximum(similarity - best[:, None], 0).sum(axis=0) / reach + alpha * q / np.nansum(q)
        gain[picks] = -np.inf
        gain[np.isnan(q)] = -np.inf
        picks.append(int(np.flatnonzero(gain >= gain.max() - 1e-13)[0]))
        best = np.maximum(best, similarity[:, picks[-1]])
        values.append(blended(similarity, q, alpha, picks, floor))
    return picks, values


def by_rank(values):
    return np.array([(np.sum(values < v) + (np.sum(values == v) - 1) / 2) / (len(values) - 1) for v in values])


def clusters(n=250, d=16, seed=1, *, with_duplicates=False):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((12, d))[rng.integers(12, size=n)] + 0.5 * rng.standard_normal((n, d))
    if with_duplicates:
        x[rng.choice(n, n // 4, replace=False)] = x[0]
    return x


def ratings(n=250, seed=2):
    return np.random.default_rng(seed).integers(1, 6, n).astype(float)  # many ties


def lengths(n=250, seed=3):
    return np.exp(np.random.default_rng(seed).standard_normal(n) * 2)  # a long tail


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("quality", [ratings, lengths])
@pytest.mark.parametrize("with_duplicates", [False, True])
def test_picks_and_objective_equal_plain_greedy_in_float64(alpha, quality, with_duplicates):
    x, raw = clusters(with_duplicates=with_duplicates), quality()
    picks, values = plain_greedy(clipped_cosines(x), by_rank(raw), alpha, 150)
    found = run(build(x, raw), 150, alpha=alpha)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-5)
    assert found.notes["kernel"] == "dense"


def test_the_whole_pool_is_worth_one():
    assert run(build(clusters(60), lengths(60)), 60).objective[-1] == pytest.approx(1, abs=1e-5)


def test_sparse_picks_equal_plain_greedy_on_the_symmetric_neighbor_kernel():
    x, raw = clusters(), lengths()
    similarity = clipped_cosines(x)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :9]
    near = np.zeros_like(similarity, dtype=bool)
    np.put_along_axis(near, nearest, values=True, axis=1)
    picks, values = plain_greedy(np.where(near | near.T, similarity, 0), by_rank(raw), 0.3, 120)
    found = run(build(x, raw), 120, alpha=0.3, kernel="sparse", n_neighbors=8)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-5)


def test_the_range_scale_keeps_distances_between_qualities():
    x, raw = clusters(), lengths()
    q = (raw - raw.min()) / (raw.max() - raw.min())
    picks, _ = plain_greedy(clipped_cosines(x), q, 0.6, 80)
    assert run(build(x, raw), 80, alpha=0.6, scale="range").ranking().tolist() == picks


def test_low_values_can_be_the_good_ones():
    data = build(clusters(), lengths())
    picks, _ = plain_greedy(clipped_cosines(clusters()), by_rank(-lengths()), 0.5, 40)
    assert run(data, 40, prefer="low").ranking().tolist() == picks


def test_without_quality_it_is_facility_location_and_with_nothing_else_the_order_of_quality():
    x, raw = clusters(with_duplicates=False), lengths()
    data = build(x, raw)
    same = FacilityLocation().score(data, n_ranked=60, rng=np.random.default_rng(0))
    assert run(data, 60, alpha=0.0).ranking().tolist() == same.ranking().tolist()
    assert run(data, 250, alpha=1.0).ranking().tolist() == np.argsort(-raw, kind="stable").tolist()


@pytest.mark.parametrize("kernel", ["dense", "sparse"])
def test_a_tie_between_cover_and_quality_goes_to_the_lowest_row(kernel):
    # row 1 covers two rows, and row 0 makes up for that by quality
    x = np.eye(3)[[0, 1, 1, 2]]
    found = run(build(x, [1.0, 0.5, 0.5, 0.0]), 4, scale="range", kernel=kernel)
    assert found.ranking()[:2].tolist() == [0, 1]
    assert found.objective[:2].tolist() == pytest.approx([0.375, 0.75])


def test_existing_rows_count_as_picked():
    x, raw, existing = clusters(), ratings(), clusters(30, seed=5)
    floor = clipped_cosines(x, existing).max(axis=1)
    picks, values = plain_greedy(clipped_cosines(x), by_rank(raw), 0.3, 60, floor)
    found = run(build(x, raw, existing=existing), 60, alpha=0.3)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-4)


def test_every_prefix_has_63_percent_of_the_best_objective():
    for seed in range(5):
        x, raw = np.random.default_rng(seed).standard_normal((8, 3)), lengths(8, seed)
        similarity, q = clipped_cosines(x), by_rank(raw)
        objective = run(build(x, raw), 8).objective
        for k in range(1, 9):
            best = max(blended(similarity, q, 0.5, list(c), 0.0) for c in itertools.combinations(range(8), k))
            assert (1 - 1 / np.e) * best <= objective[k - 1] <= best * (1 + 1e-5)


def test_rows_without_a_quality_are_represented_but_never_picked():
    x, raw = clusters(), lengths()
    raw[::3] = np.nan
    missing = [EMPTY if np.isnan(v) else None for v in raw]
    q = np.full(250, np.nan)
    q[~np.isnan(raw)] = by_rank(raw[~np.isnan(raw)])
    picks, _ = plain_greedy(clipped_cosines(x), q, 0.5, 100)
    found = run(build(x, raw, missing=missing), 100)
    assert found.ranking().tolist() == picks
    assert found.excluded.to_list() == missing
    every = run(build(x, raw, missing=missing), 250)
    assert sorted(every.ranking().tolist()) == np.flatnonzero(~np.isnan(raw)).tolist()
    for alpha in (0.0, 1.0):
        assert run(build(x, raw, missing=missing), 250, alpha=alpha).n_ranked == every.n_ranked


def test_where_the_dense_stage_ends_changes_no_pick(monkeypatch):
    from thresher.selectors.submodular import dense_kernel, small_kernel

    monkeypatch.setattr(small_kernel, "MOST_ROWS", 0)
    data = build(clusters(with_duplicates=True), ratings())
    expected = run(data, 250).ranking().tolist()
    assert sorted(expected) == list(range(250))
    monkeypatch.setattr(dense_kernel, "WORTH_THREADS", 0)
    assert run(data, 250).ranking().tolist() == expected


def test_a_feature_is_found_by_its_name_and_a_column_behind_its_prefix():
    assert QualityDiversity(quality="loss").requirements.features == {"embedding", "loss"}
    assert QualityDiversity(quality="stars").requirements.features == {"embedding", "number:stars"}
    assert QualityDiversity(quality="column:loss").requirements.features == {"embedding", "number:loss"}


def test_a_quality_of_many_numbers_is_refused():
    with pytest.raises(InputError, match="quality must be one number per row, and 'embedding' is an array of float32"):
        run(build(clusters(), ratings()), 5, quality="embedding")


ROWS = [{"text": f"{word} {i}", "label": "x", "score": i % 7} for i in range(20) for word in ("red shirt", "oak lamp")]


def test_the_quality_comes_from_a_column_of_the_user():
    subset = th.select(ROWS, "quality-diversity", budget=6, settings={"alpha": 0.9}, encoder="static")
    assert {row["score"] for row in subset.rows} == {6} | {5}
    assert "score" not in subset.manifest.content["features"]


def test_rows_with_an_empty_column_are_dropped_with_that_reason():
    rows = [{**row, "score": None if i < 3 else row["score"]} for i, row in enumerate(ROWS)]
    subset = th.select(rows, "quality-diversity", budget=40, encoder="static")
    assert len(subset) == 37
    assert subset.manifest.content["counts"]["excluded_by_reason"] == {EMPTY: 3}


def test_numbers_as_text_count_and_other_text_is_refused():
    rows = [{**row, "score": str(row["score"])} for row in ROWS]
    assert len(th.select(rows, "quality-diversity", budget=6, encoder="static")) == 6
    rows[4]["score"] = "good"
    with pytest.raises(InputError, match=r"column 'score' must hold numbers, found 1 other values \(first: 'good'\)"):
        th.select(rows, "quality-diversity", budget=6, encoder="static")


def test_a_column_that_is_not_there_is_refused_by_name():
    with pytest.raises(NotFoundError, match="column 'scores' not found.*did you mean 'score'"):
        th.select(ROWS, "quality-diversity", settings={"quality": "scores"}, budget=6, encoder="static")


def test_gains_that_many_small_losses_have_made_inexact_are_still_compared():
    """Cosines near 1 always round the same way; row 4, which ties with row 8, was left out."""
    rng = np.random.default_rng(2)
    n, d = int(rng.integers(1, 90)), int(rng.integers(1, 7))
    x, quality = rng.integers(0, 4, (n, d)), rng.integers(0, 5, n).astype(float)
    picks, _ = plain_greedy(clipped_cosines(x), by_rank(quality), 0.5, n)
    assert run(build(x, quality), n).ranking().tolist() == picks


def test_of_equal_candidates_one_is_measured():
    """At every pick, each of 64 equal rows of equal quality was measured against all rows."""
    x = np.array([[0, 1], [1, 0], [0, 1], [1, 1], [1, 0]], np.float32)
    near = np.array([0, 1, 2, 3, 4])
    assert [_find_first_equal(x, near, c) for c in range(5)] == [0, 1, 0, 3, 1]
    assert [_find_first_equal(x[:, :0], near, c) for c in range(5)] == [0, 1, 2, 3, 4], (
        "without vectors nothing is known"
    )
