from pathlib import Path

import pytest

from thresher.experiments.cells import worker_pool
from thresher.experiments.design.plans import plan_comparison, plan_curve, plan_tuning
from thresher.trainer.estimate import RunCost, plan_training
from thresher.trainer.settings import TrainSettings

COST = RunCost(
    start_seconds=2.0, row_seconds=0.01, step_seconds=0.5, step_tokens=100.0, eval_row_seconds=0.1, answer_seconds=1.0,
    memory_bytes=1,
)  # fmt: skip


@pytest.fixture
def shared(pool, test_rows, tiny_bert, quick, own_cache, monkeypatch):
    monkeypatch.setattr(worker_pool, "train_and_measure", lambda *_: pytest.fail("a dry run trains no cell"))
    yield {"eval": test_rows, "model": tiny_bert, "settings": quick}
    assert not list(Path(own_cache).rglob("outcomes.parquet"))


def test_a_run_costs_its_start_its_rows_its_steps_and_its_measuring():
    settings = TrainSettings(epochs=2, batch_size=10, eval_generations=3).resolved("sft")
    seconds, tokens = COST.estimate(100, settings, n_eval=20)
    assert seconds == pytest.approx(2 + 100 * 0.01 + 20 * 0.5 + 20 * 0.1 + 3 * 1.0)
    assert tokens == 20 * 100
    early, _ = COST.estimate(100, TrainSettings(epochs=2, batch_size=10, stop_at=0.2, eval_generations=0), n_eval=0)
    assert early == pytest.approx(2 + 100 * 0.01 + 4 * 0.5)


def test_a_curve_is_planned_cell_by_cell(pool, shared):
    grid = plan_curve(pool, **shared, methods=["length"], sizes=[8, 16, 32], seeds=3, grid=True)
    # two methods at three sizes, and the whole pool once
    assert [part.n for part in grid.parts] == [3 * (2 * 3 + 1)]
    adaptive = plan_curve(pool, **shared, methods=["length"], sizes=[8, 16, 32], seeds=3)
    assert [part.name for part in adaptive.parts] == ["first cells", "further cells, at most"]
    # in tokens: speeds are measured for each plan, and differ on a busy machine
    assert sum(part.tokens for part in adaptive.parts) < sum(part.tokens for part in grid.parts)
    assert "nothing was written" in str(adaptive)


def test_a_comparison_is_planned_by_budget(pool, shared):
    plan = plan_comparison(pool, **shared, methods=["herding"], budget=[8, 16], seeds=2, encoder="static")
    assert [part.n for part in plan.parts] == [3 * 2, 3 * 2]  # with random and length
    assert plan.to_json()["runs"] == 12


def test_a_search_is_planned_by_stage(pool, shared):
    plan = plan_tuning(pool, **shared, trials=4, finalists=2, checks=0, seeds=2)
    assert [part.n for part in plan.parts] == [4, 3, 4]
    assert plan.parts[0].tokens < plan.parts[1].tokens * 4 / 3


def test_a_training_is_planned_on_both_sides(pool, test_rows, tiny_bert, quick):
    plan = plan_training(pool, model=tiny_bert, eval=test_rows, control=pool, seeds=2, settings=quick)
    assert [part.n for part in plan.parts] == [4]
    assert plan.parts[0].name.startswith("80 rows, 10 steps, and as many on random rows")
    assert plan.memory_bytes > 0
