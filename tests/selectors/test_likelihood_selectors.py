"""Perplexity and difficulty against closed forms."""

import numpy as np
import polars as pl
import pytest

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.selectors.difficulty import NO_HELP, NO_LOSS, Difficulty
from thresher.selectors.perplexity import Perplexity

CUT = "nothing of the response is within max_length"
RNG = np.random.default_rng(0)


def build(*, missing=None, **arrays):
    n = len(next(iter(arrays.values())))
    reasons = pl.Series([None] * n if missing is None else missing, dtype=pl.String)
    return Features(
        row_id=pl.Series([f"{i:04d}" for i in range(n)]),
        arrays={name: np.array(values, dtype=np.float64) for name, values in arrays.items()},
        missing=dict.fromkeys(arrays, reasons),
    )


def scores(selector, data):
    return selector.score(data, n_ranked=1, rng=RNG)


@pytest.mark.parametrize(
    ("band", "expected"), [("low", [2, 0, 4, 1, 3]), ("high", [3, 1, 4, 0, 2]), ("middle", [4, 0, 1, 2, 3])]
)
def test_each_band_begins_with_its_own_rows(band, expected):
    data = build(loss=[1.0, 3.1, 0.5, 9.0, 2.0])
    assert scores(Perplexity(band=band), data).ranking().tolist() == expected


def test_a_row_without_a_loss_is_excluded_with_its_reason_and_moves_no_median():
    data = build(loss=[1.0, np.nan, 2.0, 30.0], missing=[None, CUT, None, None])
    for band in ("low", "middle", "high"):
        found = scores(Perplexity(band=band), data)
        assert found.value[1] == -np.inf
        assert found.excluded.to_list() == [None, CUT, None, None]
        assert 1 not in found.ranking()
    assert scores(Perplexity(band="middle"), data).ranking()[0] == 2


def test_difficulty_is_the_ratio_of_the_losses_and_the_hardest_come_first():
    data = build(loss=[1.0, 3.0, 0.2], loss_unconditional=[2.0, 4.0, 2.0])
    found = scores(Difficulty(), data)
    np.testing.assert_allclose(found.value, [0.5, 0.75, 0.1])
    assert found.ranking().tolist() == [1, 0, 2]
    assert found.excluded.null_count() == 3


def test_the_ratio_of_perplexities_is_that_of_their_exponentials():
    data = build(loss=[1.0, 3.0, 0.2], loss_unconditional=[2.0, 4.5, 2.0])
    given, alone = np.exp(data["loss"]), np.exp(data["loss_unconditional"])
    np.testing.assert_allclose(scores(Difficulty(ratio="perplexity"), data).value, given / alone)


@pytest.mark.parametrize("ratio", ["loss", "perplexity"])
def test_rows_whose_prompt_does_not_help_are_excluded_with_that_reason(ratio):
    data = build(loss=[1.0, 2.1, 2.0, 900.0], loss_unconditional=[2.0, 2.0, 2.0, 1.0])
    found = scores(Difficulty(ratio=ratio), data)
    assert found.excluded.to_list() == [None, NO_HELP, None, NO_HELP]
    assert found.value[2] == 1
    assert found.ranking().tolist() == [2, 0]


def test_rows_without_a_loss_or_without_a_difficulty_have_reasons_of_their_own():
    data = build(
        loss=[1.0, np.nan, 0.0, 0.5], loss_unconditional=[2.0, np.nan, 0.0, 0.0], missing=[None, CUT, None, None]
    )
    found = scores(Difficulty(), data)
    assert found.excluded.to_list() == [None, CUT, NO_LOSS, NO_LOSS]
    assert found.n_ranked == 1


def test_features_refuse_nan_without_a_reason_and_a_reason_without_nan():
    with pytest.raises(InputError, match=r"feature 'loss' has 1 rows with NaN or infinity \(first: 1\)"):
        build(loss=[1.0, np.nan, np.nan], missing=[None, None, CUT])
    with pytest.raises(InputError, match=r"first: 0"):
        build(loss=[1.0, np.nan], missing=[CUT, CUT])
    with pytest.raises(InputError, match=r"first: 1"):
        build(loss=[1.0, np.inf], missing=[None, CUT])
