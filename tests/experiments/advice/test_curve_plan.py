"""A time limit makes the curve smaller before it drops it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.experiments.advice import curve_plan
from thresher.experiments.advice.curve_plan import fit_into_time, plan_without_limit
from thresher.experiments.advice.size import foresee_whole_pool
from thresher.experiments.advice.steps import Steps
from thresher.experiments.curve import MIN_SIZES
from thresher.experiments.experiment import load_experiment
from thresher.experiments.planning import list_doubling_sizes
from thresher.experiments.settings import ExperimentSettings
from thresher.trainer.estimate import RunCost
from thresher.trainer.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

# a run of n rows takes a second for each of its n / 8 steps, and nothing else
COST = RunCost(
    start_seconds=0.0, row_seconds=0.0, step_seconds=1.0, step_tokens=1.0, eval_row_seconds=0.0, answer_seconds=0.0,
    memory_bytes=1,
)  # fmt: skip
# the fewest runs with an answer, up to 256 rows: 32, 128 and 256 rows, and 32 again
CELLS_OF_ONE_METHOD = 4 + 16 + 32 + 4
CELLS_OF_HALF = 4 + 8 + 16 + 4  # up to 128 rows: 32, 64 and 128


@pytest.fixture
def plan(pool, test_rows, tiny_bert, monkeypatch):
    monkeypatch.setattr(curve_plan, "measure_experiment", lambda *_, **__: COST)
    settings = TrainSettings(epochs=1, batch_size=8, min_steps=1)
    asked = ExperimentSettings(model=tiny_bert, settings=settings, overlap="drop")
    experiment = load_experiment(pool, eval=test_rows, settings=asked)
    whole = plan_without_limit(["random", "auto"], 256, n_classes=3)

    def fit(seconds_left, workers=1):
        return fit_into_time(whole, experiment, seconds_left=seconds_left, seeds=3, workers=workers)

    return fit


def test_what_does_not_fit_is_left_out_in_turn(plan):
    roomy = plan(10_000)
    assert (roomy.methods, roomy.largest, roomy.needed) == (("random", "auto"), 256, 2 * CELLS_OF_ONE_METHOD)
    # training both adapters keeps its time, twice 32 steps and a tenth, but no more than half
    assert roomy.allowed == pytest.approx(10_000 - 1.1 * 64)
    assert roomy.kept == pytest.approx(1.1 * 64)
    shorter = plan(2 * CELLS_OF_ONE_METHOD + 2)
    assert (shorter.methods, shorter.largest) == (("random",), 256)
    assert shorter.allowed == pytest.approx(CELLS_OF_ONE_METHOD + 1)
    short = plan(2 * CELLS_OF_HALF + 2)
    assert (short.methods, short.largest, short.fits) == (("random",), 128, True)
    assert not plan(2).fits
    assert plan(100).kept == 0  # training does not fit into half of it


def test_runs_at_once_share_the_cores_and_the_time(plan):
    assert plan(CELLS_OF_ONE_METHOD + 2, workers=2).methods == ("random",)
    assert plan(2 * CELLS_OF_ONE_METHOD + 2, workers=2).methods == ("random", "auto")


def test_too_few_rows_are_no_curve():
    assert plan_without_limit(["random"], 40, 2) is None


def test_what_all_rows_bring_is_foretold_from_a_curve_that_ends_before_them():
    def truth(n):
        return 0.15 + 2.0 * n**-0.5

    sizes, rng, held = [60, 120, 240, 480], np.random.default_rng(0), 0
    for _ in range(40):
        values = [list(1 - truth(n) - rng.normal(0, 0.01, 3)) for n in sizes]
        fit = fit_curve(sizes, values, is_higher_better=True)
        curve = SimpleNamespace(fits={"random": fit}, enough={}, content={"of": 480, "metric": "accuracy"})
        whole = foresee_whole_pool(curve, 1900)
        held += whole.score.low <= 1 - truth(1900) <= whole.score.high
    assert 24 <= held <= 40  # of 80 % intervals; 24 is five standard errors below 32
    assert str(whole).startswith("Trained on all 1,900, accuracy is expected to be 0.8")
    # nine times the largest size: the demo's whole pool was once foretold eleven points too low
    assert foresee_whole_pool(curve, 4500).score is None
    assert "What all 4,500 would bring is not known: the curve ends at 480 rows" in str(foresee_whole_pool(curve, 4500))
    assert foresee_whole_pool(curve, 480) is None


def test_a_curve_that_is_left_out_says_which_limit_would_do(tmp_path):
    steps = Steps(tmp_path, None, SimpleNamespace(max_time="4m"), None)
    assert steps.describe_missing_curve(100) == ""
    steps.missing_seconds = 50.0
    assert "6m would be enough" in steps.describe_missing_curve(100)


def test_rows_too_few_for_a_curve_are_told_how_many_one_takes(tmp_path):
    steps = Steps(tmp_path, SimpleNamespace(labels=["a", "b"]), SimpleNamespace(max_time=None), None)
    steps.is_too_small = True
    needed = next(n for n in range(30, 200) if len(list_doubling_sizes(n, n_classes=2)) >= MIN_SIZES)
    assert steps.describe_missing_curve(30) == f"A learning curve takes at least {needed} rows here."


def test_the_final_training_runs_late_only_where_its_time_was_kept(tmp_path):
    steps = Steps(tmp_path, None, SimpleNamespace(max_time=0.001), None, started=0.0)
    assert steps.take("adapter", lambda _: "trained") is None
    assert steps.take("adapter", lambda _: "trained", has_time_kept=True) == "trained"
    assert steps.take("curve", lambda _: "measured") is None
    assert steps.left_out == ["adapter", "curve"]


def test_the_untouched_model_is_measured_after_the_curve_for_every_prompt(plan, monkeypatch):
    """Its general rows are the training's, which keeps their time."""

    def plan_base(experiment, cost, *, n_subsets=1):
        is_own = experiment.untouched.base == "none"
        return SimpleNamespace(seconds=cost.general_seconds if is_own else cost.general_seconds + n_subsets)

    monkeypatch.setattr(curve_plan, "plan_base", plan_base)
    monkeypatch.setattr(curve_plan, "measure_experiment", lambda *_, **__: replace(COST, general_seconds=50.0))
    roomy = plan(10_000)
    sizes = 5  # 16, 32, 64, 128 and 256
    # both trainings measure the general rows, and the untouched model does once
    assert roomy.kept == pytest.approx(1.1 * (64 + 2 * 50 + 50))
    assert roomy.allowed == pytest.approx(10_000 - roomy.kept - 2 * sizes)
    assert roomy.needed == 2 * CELLS_OF_ONE_METHOD
