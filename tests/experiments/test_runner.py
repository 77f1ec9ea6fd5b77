"""What a runner says of its finished cells: errors over rows and seeds, and how many rows count."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from thresher.evaluation.metric import find_metric
from thresher.experiments.runner import ExperimentRunner


def open_runner(metric, tables):
    experiment = SimpleNamespace(metric=metric, test=range(len(tables[0])))
    outcomes = {("random", 100, seed): SimpleNamespace(outcomes=table) for seed, table in enumerate(tables)}
    return ExperimentRunner(
        experiment=experiment,
        rankings=None,
        worker_pool=None,
        n_workers=1,
        engine="local",
        on_progress=None,
        outcomes=outcomes,
    )


def answers(share, seed, n=2000):
    rng = np.random.default_rng(seed)
    label = np.where(np.arange(n) % 2, "a", "b")
    wrong = np.where(label == "a", "b", "a")
    return pl.DataFrame({"label": label, "prediction": np.where(rng.random(n) < share, label, wrong)})


@pytest.mark.parametrize("name", ["macro_f1", "balanced_accuracy"])
def test_the_error_of_a_metric_of_all_rows_has_the_spread_between_seeds(name):
    tables = [answers(share, seed) for seed, share in enumerate((0.60, 0.73, 0.89))]
    runner = open_runner(find_metric(name, "classification"), tables)
    values = [runner.experiment.metric.measure(table).value for table in tables]
    # with so many rows the seeds are nearly all of the error; over rows alone it was 0.009
    assert runner.estimate_stderr("random", 100) == pytest.approx(np.std(values, ddof=1) / 3**0.5, rel=0.05)
    assert runner.estimate_stderr("random", 100) > 0.07


def test_test_rows_without_an_answer_do_not_count():
    table = pl.DataFrame({"exact_match": [True, False, True, *[None] * 7]})
    assert open_runner(find_metric("exact_match", "sft"), [table]).count_test_values() == 3
