"""Novelty: the mean log-ratio of a fine-tuned model over its base."""

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import SettingsError
from thresher.features.container import Features
from thresher.selectors.learnability import Learnability
from thresher.selectors.novelty import Novelty

ROWS = [{"prompt": f"add {i} and 1:", "completion": f"{i + 1} " * (1 + i % 4)} for i in range(12)]


def features(loss, reference, missing=None):
    n = len(loss)
    reasons = pl.Series([None] * n if missing is None else missing, dtype=pl.String)
    arrays = {"loss": np.array(loss, np.float64), "reference_loss": np.array(reference, np.float64)}
    return Features(row_id=pl.Series([str(i) for i in range(n)]), arrays=arrays, missing=dict.fromkeys(arrays, reasons))


def score(selector, data):
    return selector.score(data, n_ranked=1, rng=np.random.default_rng(0))


def test_it_is_the_mean_log_ratio_of_the_tokens():
    base, tuned = np.log([[0.1, 0.5, 0.2], [0.4, 0.4, 0.9]]), np.log([[0.9, 0.6, 0.2], [0.4, 0.3, 0.9]])
    found = score(Novelty(), features(-base.mean(axis=1), -tuned.mean(axis=1)))
    np.testing.assert_allclose(found.value, (tuned - base).mean(axis=1))
    assert found.ranking().tolist() == [0, 1]


def test_it_equals_learnability_by_difference_but_for_rows_that_the_base_knows():
    data = features([2.0, 0.01, 1.0, np.nan], [1.5, 0.5, 0.1, np.nan], [None, None, None, "why"])
    ours, theirs = score(Novelty(), data), score(Learnability(form="difference"), data)
    np.testing.assert_allclose(ours.value, [0.5, -0.49, 0.9, -np.inf])
    assert ours.excluded.to_list() == [None, None, None, "why"]
    np.testing.assert_array_equal(ours.value[[0, 2, 3]], theirs.value[[0, 2, 3]])


def test_without_a_reference_one_adapter_is_trained_on_all_rows(tiny_llama):
    subset = th.select(ROWS, "novelty", budget=3, model=str(tiny_llama), device="cpu")
    assert np.isfinite(subset.scores.value).all()
    assert subset.manifest.content["features"]["reference_loss"]["model"].startswith("adapter on ")
    (order,) = Novelty(epochs=3).requirements.adapters
    assert (order.n_folds, order.epochs, order.share) == (1, 3, 1.0)
    assert Novelty(reference="x").requirements.adapters == ()


def test_illegal_settings_are_refused():
    with pytest.raises(SettingsError, match="novelty: epochs must be a whole number of at least 1, got 0"):
        Novelty(epochs=0)
