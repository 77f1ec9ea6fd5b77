"""A recipe is part of what an experiment is found by: another law answers anew."""

from types import SimpleNamespace

import pytest

import thresher as th
from thresher.experiments import tables
from thresher.experiments.experiment import prepare_experiment
from thresher.experiments.own import fit_points
from thresher.experiments.rankings import Rankings
from thresher.experiments.search import Search
from thresher.trainer.settings import TrainSettings


def test_a_curve_of_points_has_the_recipe_of_all_curves(monkeypatch):
    seen = []
    monkeypatch.setattr(fit_points, "digest", lambda asked: seen.append(asked) or "identity")
    points = [{"rows": n, "score": 1 - 1 / n**0.5} for n in (100, 200, 400, 800)]
    th.learning_curve(points=points)
    assert seen[0]["recipe"] == tables.RECIPE


def test_every_command_that_trains_cells_has_the_recipe(monkeypatch, tiny_bert):
    """`tune`, `base`, `advise` and `mix` hash what `describe_experiment` returns."""
    rows = [{"text": f"the {word}", "label": word[0]} for word in ("apple", "sky", "ant", "sun", "art", "sea")]
    experiment = prepare_experiment(rows[:4], eval=rows[4:], model=tiny_bert, settings=TrainSettings(), metric=None)
    settings = SimpleNamespace(trials=2, finalists=1, seeds=2, average=0, sampler="random", seed=0, checks=1)
    rankings = SimpleNamespace(settings={}, options={}, target=None)
    runner = SimpleNamespace(rankings=rankings, experiment=experiment)
    search = Search(dev=experiment, test=experiment, settings=settings, worker_pool=None, on_progress=None)
    before = search.compute_identity(), tables.describe_experiment(experiment), tables.compute_identity(runner, {})
    monkeypatch.setattr(tables, "RECIPE", "another")
    assert search.compute_identity() != before[0]
    assert tables.compute_identity(runner, {}) != before[2]
    assert tables.describe_experiment(experiment) == {**before[1], "recipe": "another"}


def identify(flip, model, asked, **settings):
    """Return the identity of an experiment; `flip` changes columns beside text and label."""
    rows = [
        {"text": f"text {i}", "label": "ab"[i % 2], "w": float(i % 2 == flip), "topic": "xyz"[(i + flip) % 3]}
        for i in range(12)
    ]
    call = {"model": model, "settings": TrainSettings(**settings), "metric": None}
    experiment = prepare_experiment(rows[:8], eval=rows[8:], **call)
    runner = SimpleNamespace(rankings=Rankings(experiment.pool, {}), experiment=experiment)
    return tables.compute_identity(runner, asked)


@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        ({}, {"weight": "w"}),  # the first row weighs nothing on one side
        ({"plan": {"axis": "topic", "methods": ("random",)}}, {}),
        ({"slices": ["topic"]}, {}),
        ({"methods": ["random", "facility-location quota=topic=sqrt"]}, {}),
        ({"methods": ["random", "stratified by=topic"]}, {}),
    ],
)
def test_columns_that_decide_a_result_are_in_its_identity(asked, settings, tiny_bert):
    same, other = (identify(flip, tiny_bert, asked, **settings) for flip in (0, 1))
    assert same == identify(0, tiny_bert, asked, **settings) != other


def test_a_column_that_nothing_names_is_not_in_the_identity(tiny_bert):
    asked = {"methods": ["random", "length"], "slices": ["label"]}
    assert identify(0, tiny_bert, asked) == identify(1, tiny_bert, asked)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEARNER", -1),
        ("RECIPES", {"lora": -1}),
        ("identify_reference", lambda *_: {"token_reference": "other files"}),
        ("identify_lm_eval_task", lambda _: {"lm_eval": "another YAML"}),
    ],
)
def test_what_a_training_is_found_by_an_experiment_is_too(name, value, tiny_bert, monkeypatch):
    before = identify(0, tiny_bert, {})
    monkeypatch.setattr(f"thresher.trainer.context.{name}", value)
    assert identify(0, tiny_bert, {}) != before
