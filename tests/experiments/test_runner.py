"""What a runner says of its finished cells: errors over rows and seeds, and how many rows count."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from thresher.errors import InputError
from thresher.evaluation.metric import find_metric
from thresher.experiments.paired_runs import PairedRuns
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.untouched.row_zero import _name_rows


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


def test_runs_of_two_models_are_paired_by_row_where_both_have_a_value():
    metric = find_metric("exact_match", "sft")

    def run(ids, answered):
        cells = [int(row) % 2 == 0 if row in answered else None for row in ids]
        return pl.DataFrame({"row_id": ids, "exact_match": pl.Series(cells, dtype=pl.Boolean)})

    ids = [f"{number:02}" for number in range(20)]
    ours, theirs = run(ids, ids[:10]), run(ids[3:], ids[3:13])
    pairs = PairedRuns.match(metric, [ours, ours], [theirs, theirs])
    a, b, _ = pairs.stack()
    assert a.tolist() == b.tolist() == [[0, 1, 0, 1, 0, 1, 0]] * 2  # rows 3 to 9
    assert pairs.compute_means() == (3 / 7, 3 / 7)
    runner = open_runner(metric, [ours, ours])
    runner.outcomes |= {("other", 100, seed): SimpleNamespace(outcomes=theirs) for seed in (0, 1)}
    assert runner.estimate_covariance([("random", 100), ("other", 100)]) == pytest.approx(0)
    with pytest.raises(InputError, match="all of them can measure, and there are 1 of these, not 2"):
        PairedRuns.match(metric, [ours, ours], [run(ids[9:], ids[9:]), theirs]).stack()


def test_rows_in_prompts_are_named_by_what_chose_them():
    runner = open_runner(find_metric("loss", "sft"), [pl.DataFrame({"row_id": ["a"]})])
    runner.rankings = SimpleNamespace(selectors={"mine": None})
    runner.variants = {"random, rank 8": SimpleNamespace(method="random", factor="rank", value="8")}
    named = {
        ("random", 1): "1 random row",
        ("random", 1200): "1,200 random rows",
        ("random, rank 8", 2): "2 random rows (rank 8)",
        ("stratified balance=sqrt", 1): "1 row chosen by stratified balance=sqrt",
        ("mine", 3): "3 rows chosen by mine",
        ("with-grown", 300): "300 rows of 'with-grown'",
    }
    assert {group: _name_rows(runner, group) for group in named} == named
    runner.axis = SimpleNamespace(unit="source groups")
    assert _name_rows(runner, ("random", 1)) == "1 random source group"
