"""Cells that the machine ends each time: an incomplete result, which the same call completes."""

import json

import polars as pl
import pytest

from thresher.errors import IncompleteError
from thresher.experiments.tuning import tune
from thresher.reporting import report

COMPARED = {"methods": "length", "budget": [8, 16], "seeds": 2}
DRAWN = {"methods": ["random"], "sizes": [8, 16, 32, 64, 80], "seeds": 3}


def has_rows(n):
    return lambda context: len(context.data) == n


def drop_seconds(content):
    """Return the content of a comparison without what was measured by the clock."""
    clock = ("select_seconds", "train_seconds", "net")
    verdicts = [{name: value for name, value in each.items() if name not in clock} for each in content["verdicts"]]
    return {**content, "verdicts": verdicts}


def read_manifest(folder):
    return json.loads((folder / "manifest.json").read_bytes())


def test_a_comparison_is_incomplete_until_the_same_call_completes_it(run_comparison, own_cache, machine, tmp_path):
    with machine(has_rows(16)):
        incomplete = run_comparison(**COMPARED, out=tmp_path / "out")
    states = dict(incomplete.cells.group_by("n_rows").agg(pl.col("status").unique()).iter_rows())
    assert states == {8: ["done"], 16: ["unfinished"]}
    unfinished = incomplete.content["unfinished"]
    assert [(entry["method"], entry["n_rows"], entry["seed"]) for entry in unfinished] == [
        (method, 16, seed) for method in ("length", "random") for seed in (0, 1)
    ]
    assert "SIGKILL" in unfinished[0]["reason"]
    assert incomplete.content["failed"] == []
    assert read_manifest(tmp_path / "out")["is_complete"] is False
    page = report(tmp_path / "out").read_text()
    assert "This result is incomplete: the machine killed 4 runs" in page
    assert "4 of 8 runs were not finished" in page
    complete = run_comparison(**COMPARED, out=tmp_path / "out")
    assert complete.content["unfinished"] == []
    assert read_manifest(tmp_path / "out")["is_complete"] is True
    assert not (tmp_path / "out" / "report.html").exists()  # of the incomplete result
    undisturbed = run_comparison(**COMPARED, out=tmp_path / "undisturbed")
    assert drop_seconds(complete.content) == drop_seconds(undisturbed.content)
    assert complete.cells.equals(undisturbed.cells)


def test_an_adaptive_curve_stops_at_what_it_does_not_know_and_goes_on_later(run_curve, own_cache, machine, tmp_path):
    with machine(has_rows(64)):
        incomplete = run_curve(**DRAWN, out=tmp_path / "out")
    assert set(incomplete.cells["n_rows"]) == {8, 16, 64, 80}  # the first cells, and no further one
    assert incomplete.content["stopped"] == "which cells come next depends on those that could not be finished"
    complete = run_curve(**DRAWN, out=tmp_path / "out")
    undisturbed = run_curve(**DRAWN, out=tmp_path / "undisturbed")
    assert complete.content == undisturbed.content
    assert complete.cells.equals(undisturbed.cells)


def test_an_experiment_of_which_nothing_was_finished_has_no_folder(run_curve, own_cache, machine, tmp_path):
    with (
        machine(lambda _: True),
        pytest.raises(IncompleteError, match=r"experiment: 3 runs could not be finished \(.*SIGKILL.*run the same"),
    ):
        run_curve(methods=["random"], sizes=[8, 16, 32], seeds=2, max_runs=3, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_search_goes_on_at_the_trials_that_were_not_finished(
    pool, test_rows, tiny_bert, own_cache, machine, tmp_path
):
    pytest.importorskip("optuna")
    options = {"data": pool, "eval": test_rows, "model": tiny_bert}
    options |= {"trials": 4, "finalists": 1, "checks": 0, "seeds": 2}
    seen = []

    def is_fourth(context):
        seen.append(context.settings)
        return len(seen) == 4

    with machine(is_fourth), pytest.raises(IncompleteError, match="tune: 2 of 4 trials are done; a run could not be"):
        tune(**options, out=tmp_path / "out")
    with machine(lambda context: context.seeds == (1,)):
        incomplete = tune(**options, out=tmp_path / "out")
    complete = tune(**options, out=tmp_path / "out")
    undisturbed = tune(**options, out=tmp_path / "undisturbed")
    if complete.content["best_trial"]:
        assert [entry["seed"] for entry in incomplete.content["unfinished"]] == [1, 1]
        assert incomplete.content["test"] is None
    assert complete.content == undisturbed.content
    assert complete.content["unfinished"] == []
    assert complete.trials.equals(undisturbed.trials)
