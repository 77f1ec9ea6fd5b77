"""Transport: planted rows, near-copies, draws, and what is refused."""

import numpy as np
import polars as pl
import pytest

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.selectors.transport import Transport


def build(x, target):
    missing = pl.Series(["has no token to read" if np.isnan(row).any() else None for row in x], dtype=pl.String)
    return Features(
        row_id=pl.Series([f"{i:06d}" for i in range(len(x))]),
        arrays={"embedding": np.asarray(x, np.float32)},
        context={"target_embedding": np.asarray(target, np.float32)},
        missing={"embedding": missing},
    )


def run(x, target, n_ranked=None, *, seed=0, **settings):
    data = build(x, target)
    return Transport(**settings).score(data, n_ranked=n_ranked or len(x), rng=np.random.default_rng(seed))


def planted(n=400, d=16, share=10):
    rng = np.random.default_rng(3)
    near = rng.standard_normal((n, d))
    near[::share] += 8 * np.eye(d)[0]
    return near, rng.standard_normal((30, d)) + 8 * np.eye(d)[0]


@pytest.mark.parametrize(("form", "least"), [("gradient", 1.0), ("spread", 0.95)])
def test_a_planted_tenth_like_the_target_comes_first(form, least):
    x, target = planted()
    # spread gives a little to others
    assert np.mean(run(x, target, form=form).ranking()[:40] % 10 == 0) >= least


def test_copies_of_a_row_do_not_share_the_first_places_with_spread():
    x, target = planted()
    # half of the good rows are near-copies
    x[::20] = x[0] + np.random.default_rng(0).normal(0, 1e-3, (20, 16))
    x[10] = x[0]
    near = set(range(0, 400, 20)) | {10}
    first = run(x, target, form="spread").ranking()[:20]
    assert len(near & set(first.tolist())) == 1
    together = run(x, target, form="gradient").ranking()[:20]
    assert len(near & set(together.tolist())) > 3


def test_spread_draws_rows_in_proportion_to_their_mass():
    rng = np.random.default_rng(1)
    directions = np.eye(8)
    x = np.repeat(directions[:2], [1, 1], axis=0)
    target = directions[[0, 0, 0, 1]] + rng.normal(0, 1e-3, (4, 8))
    # each target row has one near row: masses 3/4 and 1/4
    first = [run(x, target, form="spread", alpha=1.0, seed=seed).ranking()[0] for seed in range(150)]
    assert np.mean(np.array(first) == 0) == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 150))


def test_another_seed_draws_others_and_the_gradient_takes_no_notice():
    x, target = planted()
    first, second = (run(x, target, form="spread", seed=seed).ranking()[:30].tolist() for seed in (0, 1))
    assert first != second
    first, second = (run(x, target, seed=seed).ranking()[:30].tolist() for seed in (0, 1))
    assert first == second


def test_rows_beyond_those_that_serve_come_by_how_soon_they_would():
    x, target = planted()
    scores = run(x, target, form="spread", alpha=1.0)
    n_serving = scores.notes["n_served_by"]
    assert n_serving < 40
    # planted rows come before the others, though few of them have mass
    assert np.mean(scores.ranking()[:40] % 10 == 0) >= 0.95


@pytest.mark.parametrize("form", ["gradient", "spread"])
def test_a_row_without_a_vector_is_excluded_with_its_reason(form):
    x, target = planted(60)
    x[7] = np.nan
    scores = run(x, target, form=form)
    assert scores.value[7] == -np.inf
    assert scores.excluded[7] == "has no token to read"
    assert scores.n_ranked == 59


def test_a_target_is_required():
    with pytest.raises(InputError, match="needs rows of a target, found none; give --target FILE"):
        run(np.eye(4), np.zeros((0, 4)))
