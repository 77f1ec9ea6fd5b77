"""A recipe is part of what an experiment is found by: another law answers anew."""

from types import SimpleNamespace

import thresher as th
from thresher.dataset import load
from thresher.experiments import tables
from thresher.experiments.own import fit_points


def test_another_recipe_is_another_experiment(monkeypatch):
    pool = load([{"text": "a", "label": "b"}])
    rankings = SimpleNamespace(settings={}, options={}, target=None)
    runner = SimpleNamespace(rankings=rankings, experiment=SimpleNamespace(pool=pool))
    monkeypatch.setattr(tables, "describe_experiment", lambda experiment: {})
    before = tables.compute_identity(runner, {})
    monkeypatch.setattr(tables, "RECIPE", "another")
    assert tables.compute_identity(runner, {}) != before


def test_a_curve_of_points_has_the_recipe_of_all_curves(monkeypatch):
    seen = []
    monkeypatch.setattr(fit_points, "digest", lambda asked: seen.append(asked) or "identity")
    points = [{"rows": n, "score": 1 - 1 / n**0.5} for n in (100, 200, 400, 800)]
    th.learning_curve(points=points)
    assert seen[0]["recipe"] == tables.RECIPE
