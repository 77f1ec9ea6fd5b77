from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from thresher.dataset import load
from thresher.errors import ThresherError
from thresher.experiments.cells import worker_pool
from thresher.experiments.design import more_plans, plans
from thresher.experiments.design.more_plans import plan_rank
from thresher.experiments.design.plans import plan_comparison, plan_curve, plan_tuning
from thresher.trainer.estimate import RunCost, plan_training
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched.settings import UntouchedSettings

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
    assert [part.n for part in grid.parts] == [0, 3 * (2 * 3 + 1)]
    adaptive = plan_curve(pool, **shared, methods=["length"], sizes=[8, 16, 32], seeds=3)
    assert [part.name for part in adaptive.parts] == ["the untouched model", "first cells", "further cells, at most"]
    # in tokens: speeds are measured for each plan, and differ on a busy machine
    assert sum(part.tokens for part in adaptive.parts) < sum(part.tokens for part in grid.parts)
    assert "nothing was written" in str(adaptive)


def test_a_comparison_is_planned_by_budget(pool, shared):
    plan = plan_comparison(pool, **shared, methods=["herding"], budget=[8, 16], seeds=2, encoder="static")
    assert [part.n for part in plan.parts] == [0, 3 * 2, 3 * 2]  # with random and length
    assert plan.to_json()["runs"] == 12


def test_a_search_is_planned_by_stage(pool, shared):
    plan = plan_tuning(pool, **shared, trials=4, finalists=2, checks=0, seeds=2)
    assert [part.n for part in plan.parts] == [0, 4, 3, 4]
    assert plan.parts[1].tokens < plan.parts[2].tokens * 4 / 3


def test_a_training_is_planned_on_both_sides(pool, test_rows, tiny_bert, quick):
    plan = plan_training(pool, model=tiny_bert, eval=test_rows, control=pool, seeds=2, settings=quick)
    assert [part.n for part in plan.parts] == [0, 4]
    assert plan.parts[1].name.startswith("80 rows, 10 steps, and the same number on random rows")
    assert plan.memory_bytes > 0


def test_the_untouched_model_is_counted_once_with_its_prompts_and_general_rows():
    cost = replace(COST, answer_batch_seconds=3.0, general_seconds=5.0, general_answers_seconds=7.0)
    held_out = range(20)
    untouched, settings = UntouchedSettings(shots=(0, 4)), TrainSettings(eval_generations=3)
    context = SimpleNamespace(
        task="sft", split=SimpleNamespace(held_out=held_out), settings=settings, untouched=untouched
    )
    answers = 3 * 1.0 + 3.0
    zero_shot, four = 20 * 0.1 + answers, 5 * 20 * 0.1 + answers
    # it is loaded for the held-out rows, and for the general ones
    expected = 2.0 + zero_shot + 6 * four + 2.0 + 5.0 + 7.0
    assert cost.estimate_untouched(context, n_prompts=6) == pytest.approx(expected)
    context.untouched = UntouchedSettings(base="none")
    assert cost.estimate_untouched(context) == pytest.approx(2.0 + 5.0 + 7.0)
    context.task = "classification"
    assert cost.estimate_untouched(context) == pytest.approx(20 * 0.1)
    # a run measures the general rows too, and answers none of their questions
    seconds, _ = cost.estimate(100, TrainSettings(epochs=2, batch_size=10, eval_generations=3).resolved("sft"), 20)
    assert seconds == pytest.approx(2 + 100 * 0.01 + 20 * 0.5 + 20 * 0.1 + answers + 5.0)


def test_a_training_of_a_language_model_plans_what_it_measures_besides(tiny_llama, question_rows):
    settings = TrainSettings(max_steps=2, batch_size=4, max_length=128, eval_generations=4, max_new_tokens=4)
    call = {"model": tiny_llama, "eval": load(question_rows[30:]), "settings": settings}
    plan = plan_training(load(question_rows[:30]), **call)
    assert [part.name for part in plan.parts] == ["the untouched model", "30 rows, 2 steps"]
    assert plan.parts[0].n == 0
    assert "the untouched model: " in str(plan)
    bare = plan_training(load(question_rows[:30]), **call, untouched=UntouchedSettings(base="none", general="none"))
    assert bare.parts[0].seconds == 0
    assert "the untouched model: " not in str(bare)


def test_a_plan_refuses_weights_that_the_run_would_refuse(pool, shared):
    settings = replace(shared.pop("settings"), weight="worth")
    with pytest.raises(ThresherError, match="worth"):
        plan_comparison(pool, **shared, settings=settings, methods=["length"], budget=[8], seeds=2)


def test_a_ranking_reads_k_more_rows_with_k_in_the_prompt(tiny_llama, question_rows, monkeypatch):
    monkeypatch.setattr(more_plans, "measure_experiment", lambda _: COST)
    call = {"models": [str(tiny_llama), "tiny"], "eval": load(question_rows[30:]), "shots": (0, 4)}
    plan = plan_rank(load(question_rows[:30]), **call)
    # loaded once; ten rows are read plainly, and with four more before each
    assert [part.seconds for part in plan.parts] == pytest.approx([2 + (1 + 5) * 10 * 0.1] * 2)


def test_early_trials_measure_no_general_rows(pool, shared, monkeypatch):
    def plan(seconds):
        monkeypatch.setattr(plans, "measure_experiment", lambda *_, **__: replace(COST, general_seconds=seconds))
        return plan_tuning(pool, **shared, trials=4, finalists=2, checks=0, seeds=2).parts

    more = [own.seconds - other.seconds for own, other in zip(plan(30.0), plan(0.0), strict=True)]
    assert more == pytest.approx([0, 0, 3 * 30, 4 * 30])
