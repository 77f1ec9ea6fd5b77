"""Uncertainty coverage against a plain greedy in float64 that learns between its rounds."""

import numpy as np
import pytest

from tests.selectors.embeddings import build_features, clipped_cosines, clustered
from thresher.features.container import Features
from thresher.numeric.vectors import unit_rows
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.uncertainty_coverage import UncertaintyCoverage, compute_margin_doubt

N = 90


def build(label=None, x=None, existing=None, probability=None):
    x = clustered(N) if x is None else x
    plain = build_features(x, existing)
    label = np.random.default_rng(2).integers(0, 3, len(x)) if label is None else label
    arrays = {**plain.arrays, "column:label": label}
    if probability is not None:
        arrays["class_probability"] = probability
    return Features(row_id=plain.row_id, arrays=arrays, context=plain.context)


def run(features, n_ranked, **settings):
    return UncertaintyCoverage(**settings).score(features, n_ranked=n_ranked, rng=np.random.default_rng(0))


def doubt(x, label, picks):
    """Return 1 minus the margin of the two likeliest classes, of a classifier of the picks."""
    from sklearn.linear_model import LogisticRegression

    unit = unit_rows(x)
    model = LogisticRegression(C=10, max_iter=100, tol=1e-3).fit(unit[picks], label[picks])
    likeliest = np.sort(model.predict_proba(unit), axis=1)
    return 1 - likeliest[:, -1] + likeliest[:, -2]


def plain_greedy(x, label, k, existing=None):
    """Greedy of the textbook, in rounds that end at 20, 40, 80, ... picks."""
    s = clipped_cosines(x)
    best = np.zeros(len(x)) if existing is None else clipped_cosines(x, existing).max(axis=1)
    weight, picks, end = np.ones(len(x)), [], 20
    while len(picks) < k:
        if len(picks) == end:
            weight, end = doubt(x, label, picks), 2 * end
        gain = (np.maximum(s - best[:, None], 0) * weight[:, None]).sum(axis=0)
        gain[picks] = -np.inf
        picks.append(int(np.flatnonzero(gain >= gain.max() - 1e-11 * (1 + gain.max()))[0]))
        best = np.maximum(best, s[:, picks[-1]])
    return picks


@pytest.mark.parametrize("seed", range(4))
def test_picks_are_those_of_a_plain_greedy_in_rounds(seed):
    x, label = clustered(N, seed), np.random.default_rng(seed).integers(0, 3, N)
    scores = run(build(label, x), 70)
    assert scores.ranking().tolist() == plain_greedy(x, label, 70)
    assert scores.notes["n_rounds"] == 3


def test_existing_rows_cover_from_the_start():
    x, label, existing = clustered(N), np.arange(N) % 4, clustered(12, 5)
    assert run(build(label, x, existing), 45).ranking().tolist() == plain_greedy(x, label, 45, existing)


def test_the_complete_graph_gives_the_picks_of_the_dense_kernel():
    features = build()
    dense, sparse = run(features, 60), run(features, 60, kernel="sparse", n_neighbors=N)
    assert dense.ranking().tolist() == sparse.ranking().tolist()


def test_the_first_round_is_facility_location_and_grows_with_the_classes():
    features = build(label=np.arange(N) % 15)
    expected = FacilityLocation().score(features, n_ranked=30, rng=np.random.default_rng(0))
    assert run(features, 30).ranking().tolist() == expected.ranking().tolist()
    assert run(features, 30).notes["n_rounds"] == 1
    assert run(features, 31).notes["n_rounds"] == 2


def test_one_round_is_facility_location_weighted_by_cross_fitted_doubt():
    probability = np.random.default_rng(1).dirichlet(np.ones(4), N).astype(np.float32)
    features = build(probability=probability)
    likeliest = np.sort(probability.astype(float), axis=1)
    weighted = Features(
        row_id=features.row_id,
        arrays={**features.arrays, "weight": 1 - likeliest[:, -1] + likeliest[:, -2]},
    )
    expected = FacilityLocation().score(weighted, n_ranked=50, rng=np.random.default_rng(0))
    assert run(features, 50, rounds="one").ranking().tolist() == expected.ranking().tolist()


def test_rows_in_doubt_are_picked_before_rows_that_are_not():
    # two clear classes, and a third group whose label is a coin toss
    rng = np.random.default_rng(0)
    center = np.eye(12)[[0, 3, 6]]
    kind = np.repeat([0, 1, 2], [100, 100, 100])
    x = (center[kind] + 0.15 * rng.standard_normal((300, 12))).astype(np.float32)
    label = np.where(kind == 2, rng.integers(0, 2, 300), kind)
    counts = np.bincount(kind[run(build(label, x), 80).ranking()[20:80]], minlength=3)
    plain = FacilityLocation().score(build(label, x), n_ranked=80, rng=np.random.default_rng(0)).ranking()
    assert counts[2] >= 40
    assert np.bincount(kind[plain[20:80]], minlength=3)[2] <= 30


def test_labels_of_one_class_leave_facility_location():
    features = build(label=np.zeros(N, np.int64))
    expected = FacilityLocation().score(features, n_ranked=N, rng=np.random.default_rng(0))
    assert run(features, N).ranking().tolist() == expected.ranking().tolist()


def test_equal_rows_count_as_often_as_they_occur_and_are_picked_once():
    x = clustered(N)
    x[60:] = x[3]
    ranking = run(build(x=x), 60).ranking()
    assert ranking[0] == 3
    assert not set(ranking.tolist()) & set(range(60, N))


@pytest.mark.parametrize(
    ("probability", "expected"),
    [([[0.5, 0.5]], 1.0), ([[1.0, 0.0]], 0.0), ([[0.2, 0.7, 0.1]], 0.5), ([[0.25] * 4], 1.0)],
)
def test_doubt_is_one_minus_the_margin(probability, expected):
    assert compute_margin_doubt(np.array(probability, np.float32)) == pytest.approx(expected)
