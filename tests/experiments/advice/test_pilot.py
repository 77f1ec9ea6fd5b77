"""The pilot that trains: it takes a method that is better beyond doubt, else random rows."""

from types import SimpleNamespace

import numpy as np
import pytest

import thresher as th
from thresher.dataset import load
from thresher.errors import InputError
from thresher.evaluation.effect import Effect
from thresher.experiments.advice.pilot import Pilot, decide, plan_pilot
from thresher.trainer.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def questions(n, *, seed=0):
    rng = np.random.default_rng(seed)
    words = ["apple", "leaf", "sky", "fox", "dog", "river", "stone", "cloud"]
    return [{"prompt": " ".join(rng.choice(words, 5)) + f" {seed} {k}", "response": f"{k}"} for k in range(n)]


def plan(n, *, target=None, most=None, labels=(), max_steps=None):
    experiment = SimpleNamespace(settings=TrainSettings(max_steps=max_steps), labels=labels)
    rows = None if target is None else load(target)
    return plan_pilot(load(questions(n)), experiment, target=rows, most=most)


def test_no_judge_is_among_the_rows_to_choose_from():
    pilot = plan(400)
    judges, rows = set(pilot.judges.frame["row_id"]), set(pilot.rows.frame["row_id"])
    assert not judges & rows
    assert 60 <= len(judges) <= 100
    assert len(judges) + len(rows) == 400
    assert pilot.n_rows == round(0.1 * len(rows))
    assert pilot.target is None


def test_half_of_the_target_is_looked_at_and_the_other_half_judges():
    target = questions(40, seed=7)
    pilot = plan(200, target=target)
    looked_at, judges = set(pilot.target.frame["row_id"]), set(pilot.judges.frame["row_id"])
    assert not looked_at & judges
    assert len(looked_at) + len(judges) == 40
    assert min(len(looked_at), len(judges)) >= 10
    assert len(pilot.rows) == 200
    assert "target-similarity kernel=bm25" in pilot.methods


def test_a_budget_is_taken_as_its_share_and_steps_of_the_user_are_kept():
    pilot = plan(400, most=100, max_steps=7)
    assert pilot.n_rows == round(100 / 400 * len(pilot.rows))
    assert (pilot.settings.max_steps, pilot.settings.epochs) == (7, None)
    assert plan(400).settings.max_steps == 30


@pytest.mark.parametrize(("n", "target", "text"), [(20, None, "the pool must have at least 50 rows"),
                                                   (100, 8, "the target must have at least 20 rows")])  # fmt: skip
def test_too_few_rows_to_judge_are_refused(n, target, text):
    with pytest.raises(InputError, match=text):
        plan(n, target=None if target is None else questions(target, seed=3))


def verdict(method, value, *, p):
    effect = Effect(
        value=value,
        low=value - 0.05,
        high=value + 0.05,
        stderr=0.025,
        dof=10,
        p=p,
        detectable=0.08,
        n_rows=50,
        n_seeds=3,
    )
    return SimpleNamespace(method=method, effect=effect, p_holm=p, sentence=f"{value}")


@pytest.mark.parametrize(
    ("verdicts", "chosen"),
    [
        ([verdict("a", 0.2, p=0.001), verdict("b", 0.3, p=0.001), verdict("length", 0.9, p=0.001)], "b"),
        ([verdict("a", 0.2, p=0.2), verdict("b", -0.3, p=0.001)], "random"),
        ([verdict("length", 0.9, p=0.001)], "random"),
    ],
)
def test_the_best_that_is_better_beyond_doubt_is_taken_and_never_the_longest_rows(verdicts, chosen):
    pilot = Pilot(load(questions(60)), load(questions(9, seed=1)), None, ("a", "b"), 6, TrainSettings(max_steps=30))
    decision = decide(SimpleNamespace(verdicts=verdicts), pilot, otherwise="random")
    assert decision["chosen"] == chosen
    assert [arm["method"] for arm in decision["arms"]] == [each.method for each in verdicts]
    assert "12 short trainings" in decision["why"]
    by_target = decide(SimpleNamespace(verdicts=verdicts), pilot, otherwise="auto")
    assert by_target["chosen"] == ("auto" if chosen == "random" else chosen)


@pytest.mark.timeout(300)
def test_advice_races_methods_on_the_users_model_and_goes_by_it(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr("thresher.experiments.advice.pilot.SEEDS", 2)
    quick = TrainSettings(max_steps=1, batch_size=4, max_length=128)
    call = {"eval": questions(12, seed=5), "model": tiny_llama, "settings": quick, "curve": False, "base": "none"}
    advice = th.advise(questions(80), pilot="train", budget=8, general="none", out=tmp_path / "out", **call)
    pilot = advice.content["pilot"]
    assert {arm["method"] for arm in pilot["arms"]} == {"facility-location", "k-center", "length"}
    assert advice.content["method"] == pilot["chosen"]
    assert advice.content["answers"][1]["answer"].startswith(pilot["chosen"].capitalize())
    assert th.open(tmp_path / "out" / "pilot").content["budgets"] == [pilot["n_rows"]]
    page = th.report(advice.path).read_text()
    assert "Which method" in page
    assert "--pilot train" in page
