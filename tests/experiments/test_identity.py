"""A recipe is part of what an experiment is found by: another law answers anew."""

from types import SimpleNamespace

import thresher as th
from thresher.experiments import tables
from thresher.experiments.experiment import prepare_experiment
from thresher.experiments.own import fit_points
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
