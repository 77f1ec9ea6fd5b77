"""Metrics of the user's own: functions, commands and entry points, and what they must give."""

import pickle
import sys
from importlib.metadata import EntryPoint

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.evaluation import own_metric
from thresher.evaluation.gain import estimate_gain
from thresher.evaluation.metric import METRICS, NATS, POINTS, find_unit
from thresher.evaluation.own_metric import find_own_metric
from thresher.experiments.experiment import prepare_experiment
from thresher.trainer.settings import TrainSettings

OUTCOMES = pl.DataFrame({"row_id": list("abcd"), "label": ["x", "y", "x", "y"], "prediction": ["x", "x", "x", "y"]})


def is_right(outcomes):
    return (outcomes["label"] == outcomes["prediction"]).to_list()


def cost(outcomes):
    return (outcomes["label"] != outcomes["prediction"]).to_numpy() * 5.0


cost.is_higher_better = False

SCRIPT = """
import json, sys
rows = [json.loads(line) for line in sys.stdin]
print(json.dumps([float(row["label"] == row["prediction"]) for row in rows]))
"""


def test_a_gain_over_a_reference_is_of_the_own_values():
    others = OUTCOMES.with_columns(prediction=pl.lit("none of them"))
    gain = estimate_gain(find_own_metric(is_right), [OUTCOMES], [others])
    assert gain.value == 0.75  # three of four are right, and none


def test_a_function_gives_a_number_per_row_and_its_mean_is_the_metric():
    metric = find_own_metric(is_right)
    assert metric.per_row(OUTCOMES).tolist() == [1, 0, 1, 1]
    estimate = metric.measure(OUTCOMES)
    assert (estimate.value, estimate.n) == (0.75, 4)
    assert estimate.stderr == pytest.approx(np.std([1, 0, 1, 1], ddof=1) / 2)
    assert metric.is_higher_better
    assert not find_own_metric(cost).is_higher_better
    assert find_own_metric(is_right).name != find_own_metric(cost).name


def test_a_command_reads_the_table_and_prints_a_list(tmp_path):
    path = tmp_path / "right.py"
    path.write_text(SCRIPT)
    metric = find_own_metric(f"command:{sys.executable} {path}")
    assert metric.per_row(OUTCOMES).tolist() == [1, 0, 1, 1]
    assert metric.is_higher_better
    assert metric.name.startswith("right-")
    assert not find_own_metric(f"lower:command:{sys.executable} {path}").is_higher_better
    path.write_text(SCRIPT + "# another\n")
    assert find_own_metric(f"command:{sys.executable} {path}").name != metric.name


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise SystemExit('broken input')", "must exit with 0, got 1 .broken input."),
        ("print('0.5')", "one finite number for each of the 4 test rows, got shape"),
        ("print('[1, 2]')", "got shape .2,."),
        ("print('[1, 2, 3, NaN]')", "NaN or infinity"),
        ("print('oops')", "must print a JSON list with a number per row, got 'oops"),
    ],
)
def test_a_command_that_gives_something_else_is_told_of(tmp_path, code, said):
    path = tmp_path / "metric.py"
    path.write_text(code)
    with pytest.raises(InputError, match=said):
        find_own_metric(f"command:{sys.executable} {path}").measure(OUTCOMES)


def test_a_command_that_is_not_there_and_an_empty_one_are_told_of():
    with pytest.raises(InputError, match="cannot be run"):
        find_own_metric("command:no-such-program-at-all").measure(OUTCOMES)
    with pytest.raises(InputError, match="must be followed by a program"):
        find_own_metric("command:")


def test_an_entry_point_is_found_by_name(monkeypatch):
    point = EntryPoint("right", f"{__name__}:is_right", own_metric.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: is_right)
    monkeypatch.setattr(own_metric, "available", lambda group: {"right": point})
    assert find_own_metric("right").per_row(OUTCOMES).tolist() == [1, 0, 1, 1]
    assert not find_own_metric("lower:right").is_higher_better
    assert find_own_metric("accuracy") is None


def test_workers_get_an_experiment_without_the_function():
    metric = pickle.loads(pickle.dumps(find_own_metric(lambda outcomes: outcomes)))  # noqa: S301
    assert metric.name.startswith("<lambda>-")


def test_an_experiment_takes_it():
    rows = [{"text": f"row {i}", "label": "ab"[i % 2]} for i in range(20)]
    experiment = prepare_experiment(
        th.load(rows), eval="30%", model=None, settings=TrainSettings(), metric=is_right, overlap="drop"
    )
    assert experiment.metric.name.startswith("is_right-")
    assert experiment.find_problem(OUTCOMES) is None
    assert experiment.describe_score(OUTCOMES).startswith("is_right-")


def test_every_metric_of_a_task_has_its_unit():
    for metrics in METRICS.values():
        for name, metric in metrics.items():
            assert find_unit(name) == (POINTS if metric.is_higher_better else NATS)


@pytest.mark.parametrize(
    ("values", "is_higher_better", "shown"),
    [
        ([0.1, 0.9], True, "25.0 points"),
        ([0.1, 4.9], True, "0.250 of words"),
        ([0.1, 0.9], False, "0.250 of words"),
        ([], True, "0.250 of words"),
    ],
)
def test_a_score_of_the_users_own_has_points_only_where_it_is_a_rate(values, is_higher_better, shown):
    unit = find_unit("words-0a1b2c3d", is_higher_better=is_higher_better, values=values)
    assert f"{unit.format_number(0.25)} {unit.name}" == shown
