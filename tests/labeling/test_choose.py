"""Which rows are asked for: the picks of a plain greedy in float64, on top of what is labeled."""

import numpy as np
import pytest

from thresher.labeling.choose import DOUBTFUL_SHARE, Known, choose_rows, resolve_way
from thresher.numeric.vectors import unit_rows
from thresher.selectors.pilot.student import fit_student
from thresher.selectors.uncertainty_coverage import compute_margin_doubt


def draw(n, m, *, seed=0, d=8, k=3):
    """Return vectors of n unlabeled rows around k centers, and of m labeled ones."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(k, d))
    label = np.r_[np.arange(k), rng.integers(k, size=m - k)] if m >= k else np.zeros(m, np.int64)
    x = unit_rows(center[rng.integers(k, size=n)] + rng.normal(size=(n, d)) * 0.8)
    return x, Known(unit_rows(center[label] + rng.normal(size=(m, d)) * 0.8), label.astype(np.int64))


def pick_plainly(x, known, n_rows, weight, candidates):
    """Return greedy picks of weighted coverage on top of the labeled rows, in float64."""
    kernel = np.maximum(x.astype(float) @ x.T.astype(float), 0)
    now = np.maximum(x.astype(float) @ known.vectors.T.astype(float), 0).max(axis=1)
    picks = []
    for _ in range(n_rows):
        gain = [
            np.maximum(kernel[j] - now, 0) @ weight if j in candidates and j not in picks else -1 for j in range(len(x))
        ]
        picks.append(int(np.argmax(np.round(gain, 10))))
        now = np.maximum(now, kernel[picks[-1]])
    return picks


def choose(x, known, n_rows, by):
    return choose_rows(x, known, n_rows, by=by, rng=np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(3))
def test_doubtful_rows_are_covered_as_by_a_plain_greedy(seed):
    x, known = draw(40, 9, seed=seed)
    model = fit_student(known.vectors, known.label)
    doubt = compute_margin_doubt(model.predict_proba(x))
    candidates = set(np.flatnonzero(doubt >= np.quantile(doubt, 1 - DOUBTFUL_SHARE)).tolist())
    chosen = choose(x, known, 8, "cover-doubt")
    assert chosen.rows.tolist() == pick_plainly(x, known, 8, doubt, candidates)
    assert chosen.doubt == pytest.approx(doubt, rel=1e-4)
    assert set(chosen.rows.tolist()) <= candidates


def test_without_classes_rows_are_covered_alike():
    x, known = draw(30, 2)
    assert choose(x, known, 6, "cover").rows.tolist() == pick_plainly(x, known, 6, np.ones(30), set(range(30)))
    nothing = Known(np.zeros((0, 8), np.float32), None)
    chosen = choose(x, nothing, 3, "cover")
    assert len(chosen.rows) == 3
    assert chosen.nearest.tolist() == [-1] * 3
    assert chosen.doubt is chosen.guess is None


@pytest.mark.parametrize("n_scored", [0, 3])
def test_rows_without_a_score_are_picked_as_by_coverage_alone(n_scored):
    x, known = draw(40, 4)
    score = np.zeros(40)
    score[[30, 7, 22][:n_scored]] = [0.2, 0.5, 0.9][:n_scored]
    rows = choose_rows(x, known, 12, by="disagree", rng=np.random.default_rng(0), score=score).rows.tolist()
    first = pick_plainly(x, known, n_scored, score, {30, 7, 22})
    assert rows[:n_scored] == first
    more = Known(np.concatenate([known.vectors, x[first]]), None)
    rest = set(range(40)) - set(first)
    assert rows[n_scored:] == pick_plainly(x, more, 12 - n_scored, np.ones(40), rest)


@pytest.mark.parametrize("by", ["cover", "cover-doubt", "doubt"])
def test_a_smaller_batch_is_the_beginning_of_a_larger_one_and_all_rows_are_ranked_once(by):
    x, known = draw(24, 6)
    x[20:] = x[3]  # copies: asked for once, until nothing else is left
    whole = choose(x, known, 24, by).rows.tolist()
    assert sorted(whole) == list(range(24))
    for n in (1, 5, 12, 19):
        assert choose(x, known, n, by).rows.tolist() == whole[:n]
    assert sum(row in (3, 20, 21, 22, 23) for row in whole[:20]) == 1


def test_what_is_known_of_each_pick_fits_the_vectors():
    x, known = draw(30, 7)
    chosen = choose(x, known, 5, "cover-doubt")
    cosine = x @ known.vectors.T
    assert chosen.nearest.tolist() == cosine[chosen.rows].argmax(axis=1).tolist()
    assert chosen.similarity == pytest.approx(cosine[chosen.rows].max(axis=1), abs=1e-6)
    assert chosen.stands_for.sum() == 30
    probability = fit_student(known.vectors, known.label).predict_proba(x[chosen.rows])
    assert chosen.probability == pytest.approx(-np.sort(-probability, axis=1)[:, :2])


def test_doubt_needs_two_classes():
    one = Known(np.ones((3, 2), np.float32), np.zeros(3, np.int64))
    two = Known(np.ones((3, 2), np.float32), np.array([0, 1, 0]))
    answers = Known(np.ones((3, 2), np.float32), None)
    assert [resolve_way("auto", known) for known in (one, two, answers)] == ["cover", "cover-doubt", "cover"]
    assert [resolve_way("doubt", known) for known in (one, two)] == ["cover", "doubt"]
    assert resolve_way("random", one) == "random"


def test_random_rows_are_no_copies_while_others_are_left():
    x = np.eye(6, dtype=np.float32)[[0, 0, 0, 1, 2, 2, 3, 4, 5, 0]]
    known = Known(np.zeros((0, 6), np.float32), None)
    chosen = choose_rows(x, known, 8, by="random", rng=np.random.default_rng(0)).rows
    assert len(np.unique(x[chosen[:6]], axis=0)) == 6
    assert len(set(chosen.tolist())) == 8
    plain = choose_rows(np.eye(6, dtype=np.float32), known, 6, by="random", rng=np.random.default_rng(0)).rows
    assert plain.tolist() == np.random.default_rng(0).permutation(6).tolist()
