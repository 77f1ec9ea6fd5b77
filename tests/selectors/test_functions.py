"""Plain functions as selectors."""

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, NotFoundError, SettingsError
from thresher.features.container import Features
from thresher.selectors import selector
from thresher.selectors.functions import FunctionSelector
from thresher.selectors.registry import as_selector
from thresher.subset.scores import Scores

ROWS = [{"text": "word " * (i + 1), "label": "abc"[i % 3]} for i in range(12)]


def shortest(length):
    return -length


def by_draw(features, rng):
    return rng.random(features.n_rows)


@selector("column:label", "length")
def longest_of_label(features, n_ranked):
    assert n_ranked == 4
    return features["length"] - 1000 * features["column:label"]


def test_the_parameters_of_a_function_are_its_features():
    subset = th.select(ROWS, shortest, budget=3)
    assert [len(row["text"].split()) for row in subset.rows] == [1, 2, 3]
    content = subset.manifest.content
    assert content["method"] == "shortest"
    assert set(content["features"]) == {"length"}


def test_a_function_may_ask_for_the_generator():
    first, second = (th.select(ROWS, by_draw, budget=3, seed=seed) for seed in (0, 1))
    assert first.manifest.content["depends_on_seed"]
    assert first.kept.tolist() != second.kept.tolist()


def test_features_that_cannot_be_parameters_are_named_by_the_decorator():
    subset = th.select(ROWS, longest_of_label, budget=4, order="rank")
    assert [row["label"] for row in subset.rows] == ["a"] * 4
    assert longest_of_label.requirements.features == {"column:label", "length"}
    assert longest_of_label.name == "longest_of_label"


def test_scores_are_taken_as_they_are():
    def constant(features):
        return Scores(row_id=features.row_id, value=np.zeros(features.n_rows), by="constant", notes={"x": 1})

    assert th.select(ROWS, constant, budget=2).scores.notes == {"x": 1}


def test_rows_without_a_value_are_excluded_with_the_reason():
    data = Features(
        row_id=pl.Series("row_id", ["a", "b"]),
        arrays={"loss": np.array([1.0, np.nan])},
        missing={"loss": pl.Series([None, "it is empty"])},
    )

    def hardest(loss):
        return loss

    scores = as_selector(hardest).score(data, n_ranked=2, rng=np.random.default_rng(0))
    assert scores.value.tolist() == [1.0, -np.inf]
    assert scores.excluded.to_list() == [None, "it is empty"]


def test_a_changed_function_is_another_request():
    def first(length):
        return length

    def other(length):
        return 2 * length

    assert as_selector(first).settings() == as_selector(first).settings()
    assert as_selector(first).settings() != as_selector(other).settings()


def test_a_feature_that_was_not_asked_for_is_named():
    def careless(features):
        return features["length"]

    with pytest.raises(NotFoundError, match=r"careless: feature 'length' was not computed.*@selector\('NAME'\)"):
        th.select(ROWS, careless, budget=2)


def test_an_answer_of_another_shape_is_refused():
    def two(length):
        return length[:2]

    with pytest.raises(InputError, match=r"two: must return one number for each of the 12 rows, got .* \(2,\)"):
        th.select(ROWS, two, budget=2)


def test_functions_without_names_are_refused():
    with pytest.raises(SettingsError, match="got a lambda; write it with def"):
        th.select(ROWS, lambda length: length, budget=2)
    with pytest.raises(SettingsError, match="must name each of its parameters"):
        FunctionSelector(lambda_with_rest)


def lambda_with_rest(*features):
    return features
