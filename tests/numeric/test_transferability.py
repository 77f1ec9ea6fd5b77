"""Scores of features against slow references that are written out here."""

import numpy as np
import pytest
import scipy

from thresher.numeric.transferability import (
    compute_evidence,
    compute_h_score,
    count_neighbor_hits,
    cross_fit_regression,
)


def make_features(n, d, n_classes, *, signal=1.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    centers = signal * rng.standard_normal((n_classes, d))
    return rng.standard_normal((n, d)) * rng.uniform(0.3, 2, d) + centers[codes], codes


def maximize_slowly(x, y):
    """Maximize log N(y; 0, I / b + X X^T / a) over log a and log b."""

    def loss(logs):
        a, b = np.exp(logs)
        covariance = np.eye(len(y)) / b + x @ x.T / a
        return -scipy.stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)

    starts = [(0.0, 0.0), (3.0, 1.0), (-2.0, 2.0)]
    options = {"xatol": 1e-7, "fatol": 1e-10, "maxiter": 2000}
    return -min(
        scipy.optimize.minimize(loss, start, method="Nelder-Mead", options=options).fun for start in starts
    ) / len(y)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (30, 60)])
def test_the_evidence_is_the_marginal_likelihood_at_its_best(n, d):
    x, codes = make_features(n, d, 3, signal=0.4)
    slow = np.mean([maximize_slowly(x, (codes == code).astype(float)) for code in range(3)])
    assert compute_evidence(x, codes) == pytest.approx(slow, abs=1e-5)


def compute_h_slowly(x, codes):
    """Score with scikit-learn's covariance, in the directions in which the rows differ."""
    from sklearn.covariance import LedoitWolf

    centered = x - x.mean(axis=0)
    rank = np.linalg.matrix_rank(centered)
    basis, _ = np.linalg.qr(centered.T @ np.random.default_rng(1).standard_normal((len(x), rank)))
    rotated = centered @ basis  # (n, rank) loses nothing
    fitted = LedoitWolf(assume_centered=True).fit(rotated)
    between = np.zeros((rank, rank))
    for code in np.unique(codes):
        mean = rotated[codes == code].mean(axis=0)
        between += np.mean(codes == code) * np.outer(mean, mean)
    return (1 - fitted.shrinkage_) * np.trace(np.linalg.solve(fitted.covariance_, between))


@pytest.mark.parametrize(("n", "d"), [(80, 7), (30, 60)])
def test_the_h_score_has_the_covariance_of_ledoit_and_wolf(n, d):
    x, codes = make_features(n, d, 3)
    assert compute_h_score(x, codes) == pytest.approx(compute_h_slowly(x, codes), abs=1e-5)


@pytest.mark.parametrize("d", [5, 90])
def test_zero_columns_rotations_and_names_of_classes_change_nothing(d):
    x, codes = make_features(48, d, 4, signal=0.5)
    fold = np.arange(48) // 10
    padded = np.zeros((48, d + 40))
    padded[:, np.random.default_rng(3).permutation(d + 40)[:d]] = x
    rotated = x @ scipy.stats.ortho_group.rvs(d, random_state=5)
    renamed = np.array([2, 0, 3, 1])[codes]
    for same_x, same_codes in ((padded, codes), (rotated, codes), (x, renamed)):
        for score in (compute_evidence, compute_h_score):
            assert score(same_x, same_codes) == pytest.approx(score(x, codes), abs=1e-7)
        assert np.array_equal(count_neighbor_hits(same_x, same_codes), count_neighbor_hits(x, codes))
        hits, brier = cross_fit_regression(same_x, same_codes, fold)
        assert np.array_equal(hits, cross_fit_regression(x, codes, fold)[0])
        assert np.allclose(brier, cross_fit_regression(x, codes, fold)[1], atol=1e-7)


def test_the_evidence_of_noise_does_not_grow_with_its_width():
    codes = np.arange(120) % 10
    rng = np.random.default_rng(0)
    noise = [compute_evidence(rng.standard_normal((120, d)), codes) for d in (32, 128, 512, 2048)]
    assert np.ptp(noise) < 0.02
    signal, _ = make_features(120, 32, 10, signal=0.6)
    assert compute_evidence(signal, codes) > max(noise) + 0.1


def test_neighbors_vote_as_a_plain_loop_says():
    x, codes = make_features(40, 8, 4, signal=0.8)
    centered = x - x.mean(axis=0)
    hits = []
    for i in range(40):
        cosine = [
            (centered[i] @ centered[j] / np.linalg.norm(centered[i]) / np.linalg.norm(centered[j]), codes[j])
            for j in range(40)
            if j != i
        ]
        votes = np.zeros(4)
        for value, code in sorted(cosine, reverse=True)[:5]:
            votes[code] += value + 1
        hits.append(votes.argmax() == codes[i])
    assert count_neighbor_hits(x, codes).tolist() == hits
    assert 5 < sum(hits) < 40


def test_the_regression_sees_no_row_of_the_fold_and_takes_the_likeliest_penalty():
    x, codes = make_features(60, 20, 3, signal=0.5)
    fold = np.arange(60) % 4
    hits, brier = cross_fit_regression(x, codes, fold)
    for number in range(4):
        learned, judged = fold != number, fold == number
        mean, y = x[learned].mean(axis=0), np.eye(3)[codes[learned]]
        a, b = x[learned] - mean, y - y.mean(axis=0)
        best, n = (-np.inf, 0.0), len(a)
        for ratio in np.geomspace(1e-4, 1e4, 400):
            covariance = np.eye(n) + ratio * a @ a.T
            noise = (b * np.linalg.solve(covariance, b)).sum() / b.size
            best = max(best, (-np.linalg.slogdet(covariance)[1] * 3 - b.size * np.log(noise), ratio))
        weights = np.linalg.solve(a.T @ a + np.eye(20) / best[1], a.T @ b)
        said = (x[judged] - mean) @ weights + y.mean(axis=0)
        assert np.array_equal(said.argmax(axis=1) == codes[judged], hits[judged])
        assert np.allclose(((said - np.eye(3)[codes[judged]]) ** 2).sum(axis=1), brier[judged], atol=0.02)


def test_degenerate_features_have_a_score():
    codes = np.arange(12) % 2
    flat = np.ones((12, 3))
    assert compute_h_score(flat, codes) == 0.0
    assert np.isfinite(compute_evidence(np.zeros((12, 3)), codes))
    assert cross_fit_regression(np.zeros((12, 3)), codes, np.arange(12) % 3)[0].mean() <= 0.5
    exact = np.eye(2)[codes]  # the classes themselves
    assert np.isfinite(compute_evidence(exact, codes))
    assert cross_fit_regression(exact, codes, np.arange(12) // 4)[0].all()
