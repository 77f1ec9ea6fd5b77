import json
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from thresher.cli.curve import summarize
from thresher.dataset import load
from thresher.errors import InputError, NotFoundError, OutputError, SettingsError
from thresher.evaluation.estimate import mean_over_seeds
from thresher.evaluation.metric import find_metric
from thresher.experiments.cells import worker_pool
from thresher.experiments.cells.cell import Outcome
from thresher.experiments.curve_io import describe_dips, describe_least_steps, read_curve
from thresher.experiments.design.group_axis import GroupAxis
from thresher.experiments.design.variants import count_parameters
from thresher.experiments.learning_curve import learning_curve
from thresher.experiments.runner import ExperimentRunner
from thresher.reporting import report
from thresher.selectors.k_center import KCenter
from thresher.trainer.settings import TrainSettings

SIZES = [8, 16, 32, 64]
GRID = {"methods": "random,length", "sizes": SIZES, "seeds": 2, "grid": True}
GRID |= {"max_rows": 64, "slices": ["half"], "targets": [0.5], "more": [100]}


@pytest.fixture(scope="module")
def grid_curve(run_curve, tmp_path_factory):
    out = tmp_path_factory.mktemp("curve") / "out"
    notes = []
    curve = run_curve(**GRID, out=out, on_progress=notes.append)
    return curve, notes


def test_every_cell_of_the_grid_is_there_once(grid_curve):
    curve, _ = grid_curve
    expected = sorted((m, n, s) for m in ("random", "length") for n in SIZES for s in range(2))
    assert curve.cells.select("method", "n_rows", "seed").rows() == expected
    assert set(curve.cells["status"]) == {"done"}
    assert curve.cells["n"].to_list() == [40] * 16


def test_values_are_those_of_the_outcomes(grid_curve):
    curve, _ = grid_curve
    table = pl.read_parquet(curve.path / "outcomes.parquet")
    again = table.group_by("method", "n_rows", "seed").agg(pl.col("correct").mean()).sort("method", "n_rows", "seed")
    assert again["correct"].to_list() == pytest.approx(curve.cells["value"].to_list())
    point = next(p for p in curve.content["methods"]["random"]["points"] if p["n_rows"] == 16)
    runs = table.filter((pl.col("method") == "random") & (pl.col("n_rows") == 16)).partition_by("seed")
    crossed = mean_over_seeds(np.stack([run["correct"].cast(pl.Float64).to_numpy() for run in runs]))
    assert (point["value"], point["stderr"]) == pytest.approx((crossed.value, crossed.stderr))


def test_the_subsets_are_nested_and_drawn_from_the_pool(grid_curve, pool):
    curve, _ = grid_curve
    picks = pl.read_parquet(curve.path / "picks.parquet")
    assert set(picks["row_id"]) <= set(pool.frame["row_id"])
    for (_, _), part in picks.group_by("method", "seed"):
        assert part["rank"].to_list() == list(range(1, 65))
        assert part["row_id"].n_unique() == 64


def test_a_curve_is_drawn_with_its_methods_and_its_answer(grid_curve):
    curve, _ = grid_curve
    (ax,) = curve.plot().axes
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"random", "length", "all rows"}
    assert ax.get_title() == curve.content["answer"]
    assert curve.plot(ax) is ax.figure


def test_slices_divide_the_test_set(grid_curve, test_rows):
    curve, _ = grid_curve
    table = pl.read_csv(curve.path / "slices.csv", schema_overrides={"group": pl.String})
    sums = table.group_by("method", "n_rows", "slice").agg(pl.col("n").sum())
    assert set(sums["n"]) == {len(test_rows)}
    assert set(table["slice"]) == {"label", "half"}


def test_the_answer_has_a_status_and_the_questions_an_answer(grid_curve):
    curve, _ = grid_curve
    assert set(curve.enough) == {"random", "length"}
    assert curve.enough["random"].verdict in ("enough", "all", "cannot tell")
    assert curve.enough["random"].of == 64
    assert curve.list_facts()[0] == ("answer", curve.content["answer"])
    entry = curve.content["methods"]["random"]
    assert [target["target"] for target in entry["targets"]] == [0.5]
    assert [gain["more"] for gain in entry["gains"]] == [100]
    assert sum(entry["laws"].values()) == pytest.approx(1, abs=1e-5)
    assert curve.content["cost_share"] == 1


def test_the_same_call_reads_the_folder_back(run_curve, grid_curve):
    curve, _ = grid_curve
    again = run_curve(**GRID, out=curve.path)
    assert again.cells.equals(curve.cells)
    assert again.enough == curve.enough
    with pytest.raises(OutputError):
        run_curve(sizes=SIZES, max_rows=64, out=curve.path)


def test_cells_of_an_earlier_command_are_not_run_again(run_curve, grid_curve, monkeypatch):
    def refuse(*_):
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(worker_pool, "train_and_measure", refuse)
    again = run_curve(methods=["random"], sizes=SIZES[:3], max_rows=32, seeds=2, grid=True)
    assert set(again.cells["status"]) == {"done"}
    assert again.path is None


def test_the_whole_pool_is_one_cell_whoever_chose_it(run_curve):
    curve = run_curve(methods=["length"], sizes=[8, 16, 80], seeds=2, grid=True)
    whole = curve.cells.filter(pl.col("n_rows") == 80)
    assert whole.filter(pl.col("seed") == 0)["cell"].n_unique() == 1


def test_the_adaptive_mode_runs_a_part_of_the_grid_and_says_why_it_stopped(run_curve):
    curve = run_curve(methods=["random"], seeds=5)
    assert 0 < curve.content["cost_share"] <= 0.45
    assert curve.content["stopped"]
    assert len(curve.cells) < 5 * 7


@pytest.mark.parametrize("methods", ["random", "length"])
def test_few_runs_are_spent_so_that_there_is_an_answer_about_the_whole_pool(run_curve, methods):
    n_methods = len({"random", methods})
    curve = run_curve(methods=methods, max_runs=4 * n_methods)
    assert len(curve.cells) <= 4 * n_methods
    assert curve.content["stopped"].endswith("runs were allowed") or curve.content["stopped"] == "the answer is firm"
    assert len(curve.enough) == n_methods
    assert {answer.of for answer in curve.enough.values()} == {80}


def test_no_time_at_all_still_gives_the_first_batch(run_curve, tmp_path):
    curve = run_curve(methods=["random"], sizes=SIZES, max_time=1e-9, out=tmp_path / "out")
    assert len(curve.cells) == 1
    assert curve.enough == {}


def test_the_whole_pool_is_always_among_the_sizes_unless_it_costs_too_much(run_curve):
    curve = run_curve(methods=["random"], sizes=[8, 16], seeds=2, grid=True)
    assert sorted(set(curve.cells["n_rows"])) == [8, 16, 80]
    assert curve.enough["random"].is_whole_pool
    part = run_curve(methods=["random"], sizes=[8, 16], max_rows=32, seeds=2, grid=True)
    assert sorted(set(part.cells["n_rows"])) == [8, 16, 32]
    assert "of the first 32 rows" in part.content["answer"] or "cannot tell" in part.content["answer"]


def test_sizes_of_which_one_run_would_outlast_the_time_are_left_out(run_curve, own_cache, monkeypatch):
    real = worker_pool.train_and_measure

    def slow(context, work):
        outcomes, facts = real(context, work)
        return outcomes, {**facts, "train_seconds": 5.0 * len(context.split.train)}

    monkeypatch.setattr(worker_pool, "train_and_measure", slow)
    curve = run_curve(methods=["random"], sizes=[8, 10, 12, 64], max_rows=64, seeds=2, max_time=100)
    assert curve.content["of"] == 12
    assert curve.enough["random"].of == 12


def test_ranks_are_a_second_factor_and_are_compared_with_more_rows(run_curve, tmp_path):
    shared = {"methods": ["random"], "sizes": [8, 16, 32], "max_rows": 32, "seeds": 2, "grid": True}
    curve = run_curve(**shared, ranks=[8, 2], out=tmp_path / "out")
    labels = ["random, rank 2", "random, rank 8"]
    assert sorted(set(curve.cells["method"])) == labels
    joint = curve.content["joint"]
    assert joint["values"] == {"2": 2.0, "8": 8.0}
    assert 0 <= joint["p_rows"] <= 1
    assert ": from 32 rows and rank 8, the rows are expected to bring " in curve.content["answer"]
    assert len(curve.content["outlook"]) == 2
    alone = run_curve(**shared)  # rank 8 is the default: the same cells
    assert set(alone.cells["cell"]) < set(curve.cells["cell"])
    assert read_curve(tmp_path / "out").content["joint"] == joint
    assert ("probability that it brings more" in report(tmp_path / "out").read_text()) is not joint["is_misfit"]


def test_groups_are_an_axis_at_equal_rows(pool_rows, test_rows, tiny_bert, quick, tmp_path):
    rows = [row | {"by": f"group {i % 6}"} for i, row in enumerate(pool_rows[:80])]
    curve = learning_curve(
        load(rows), eval=test_rows, methods=["random"], axis="by", max_rows=12, seeds=2, grid=True, model=tiny_bert,
        settings=quick, out=tmp_path / "out",
    )  # fmt: skip
    assert sorted(set(curve.cells["n_rows"])) == [1, 2, 4, 6]
    assert curve.content["axis"] == {"column": "by", "rows": 12, "left_out": 0}
    assert set(curve.cells["steps"]) == {2}  # 12 rows in batches of 8, whatever the groups
    assert "of the 6 by groups" in curve.content["answer"]
    page = report(tmp_path / "out").read_text()
    assert "by groups" in page
    assert "with 6 rows" not in page
    assert summarize(curve).splitlines()[:2] == [curve.content["answer"], *curve.content["outlook"]]
    with pytest.raises(SettingsError, match="axis draws random groups"):
        learning_curve(load(rows), eval=test_rows, methods=["length"], axis="by")


def test_groups_of_an_axis_are_nested_and_share_the_rows_evenly(pool_rows):
    rows = load([row | {"by": f"group {i % 6}"} for i, row in enumerate(pool_rows)])
    axis, by = GroupAxis.read(rows, "by", 12), rows.column("by").to_numpy()
    smaller: set[str] = set()
    for size in (1, 2, 4, 6):
        groups, counts = np.unique(by[axis.sample(size, seed=3)], return_counts=True)
        assert (len(groups), counts.sum(), counts.max() - counts.min()) == (size, 12, 0)
        assert smaller <= set(groups)
        smaller = set(groups)
    with pytest.raises(InputError, match="at least 4 values of by with 21 rows each, .* found 0"):
        GroupAxis.read(rows, "by", 21)


def test_models_are_a_second_factor_by_their_parameters(run_curve, tiny_bert):
    with pytest.raises(InputError, match="at least 2 values, got .* alone"):
        run_curve(methods=["random"], sizes=[8, 16, 32], models=[str(tiny_bert)])
    with pytest.raises(SettingsError, match="two second factors"):
        run_curve(methods=["random"], sizes=[8, 16, 32], models=[str(tiny_bert)], ranks=[2, 4])
    from transformers import AutoModel

    assert count_parameters(tiny_bert) == AutoModel.from_pretrained(tiny_bert).num_parameters()


def test_macro_f1_has_a_curve_though_it_has_no_value_per_row(run_curve):
    curve = run_curve(methods=["random"], sizes=[8, 16, 32], max_rows=32, seeds=2, grid=True, metric="macro_f1")
    assert np.trace(curve.fits["random"].test_covariance) >= 0
    assert curve.enough["random"].within == 0.01


def test_equal_steps_gives_every_size_the_steps_of_the_largest(run_curve, own_cache):
    curve = run_curve(methods=["random"], sizes=[8, 16, 64], max_rows=64, seeds=2, grid=True, equal="steps")
    assert set(curve.cells["steps"]) == {8}  # 64 rows in batches of 8


def test_a_cell_that_fails_is_recorded_and_the_rest_goes_on(run_curve, own_cache, monkeypatch, tmp_path):
    real = worker_pool.train_and_measure

    def fail_at_16(context, work):
        if len(context.split.train) == 16:
            raise ValueError("a bad step")
        return real(context, work)

    monkeypatch.setattr(worker_pool, "train_and_measure", fail_at_16)
    curve = run_curve(methods=["random"], sizes=SIZES, max_rows=64, seeds=2, grid=True, out=tmp_path / "out")
    failed = curve.cells.filter(pl.col("status") == "failed")
    assert failed["n_rows"].to_list() == [16, 16]
    assert "a bad step" in failed["reason"][0]
    assert [p["n_rows"] for p in curve.content["methods"]["random"]["points"]] == [8, 32, 64]


def test_when_every_cell_fails_the_first_reason_is_reported(run_curve, own_cache, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such device")

    monkeypatch.setattr(worker_pool, "train_and_measure", fail)
    with pytest.raises(InputError, match="all 12 cells failed.*no such device"):
        run_curve(methods="length", sizes=SIZES[:3], max_rows=32, seeds=2, grid=True)


def test_a_test_row_in_the_pool_is_refused_by_name_or_dropped(pool_rows, tiny_bert, quick):
    pool, leaky = load(pool_rows[:80]), load(pool_rows[78:])
    with pytest.raises(InputError, match=r"found 2 of 42 there .*:"):
        learning_curve(pool, eval=leaky, sizes=SIZES, model=tiny_bert, settings=quick)
    curve = learning_curve(
        pool, eval=leaky, methods=["random"], sizes=[8, 16, 32], max_rows=32, seeds=2, grid=True, overlap="drop",
        model=tiny_bert, settings=quick,
    )  # fmt: skip
    assert curve.content["pool"] == 78


def test_a_share_of_the_pool_is_held_out(pool, tiny_bert, quick):
    curve = learning_curve(
        pool, eval="25%", methods=["random"], sizes=[8, 16, 60], seeds=2, grid=True, model=tiny_bert, settings=quick
    )
    assert curve.content["pool"] == 60
    assert set(curve.cells["n"]) == {20}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sizes": [8]}, InputError, "at least 3 sizes"),
        ({"sizes": [8, 16, 64], "max_rows": 32}, InputError, "at most max_rows .32., got 64"),
        ({"sizes": [8, 16, 1000]}, InputError, "at most the 80 rows of the pool, got 1,000"),
        ({"sizes": [8, 16, 2.5]}, SettingsError, "whole numbers"),
        ({"sizes": [0, 16, 32]}, SettingsError, "at least 1"),
        ({"seeds": 1}, SettingsError, "seeds must be a whole number of at least 2"),
        ({"methods": "randon"}, NotFoundError, "random"),
        ({"metric": "acuracy"}, NotFoundError, "accuracy"),
        (
            {"within": 0.0},
            SettingsError,
            "within must be a number above 0 or a share below 100%, as 0.02 or 1%, got 0.0",
        ),
        ({"within": "one point"}, SettingsError, "within must be a number"),
        ({"equal": "time"}, SettingsError, "equal must be"),
        ({"engine": "spark"}, SettingsError, "engine"),
        ({"workers": 0}, SettingsError, "workers"),
        ({"slices": ["nosuch"]}, NotFoundError, "nosuch"),
        ({"slices": ["half"], "metric": "macro_f1"}, InputError, "no value per row"),
        ({"method_settings": {"facility-locaton": {"x": 1}}}, SettingsError, "facility-locaton"),
        ({"targets": [90]}, SettingsError, "in 0..1"),
    ],
)
def test_bad_use_is_reported_in_one_sentence(run_curve, options, error, words):
    with pytest.raises(error, match=words) as caught:
        run_curve(**({"sizes": SIZES} | options))
    assert "\n" not in str(caught.value)


def test_the_folder_says_nothing_of_the_clock_outside_cost_and_manifest(grid_curve):
    curve, _ = grid_curve
    assert "seconds" not in (curve.path / "curve.csv").read_text()
    assert "seconds" not in json.dumps({k: v for k, v in curve.content.items() if k != "stopped"})


def build_table(is_right):
    return pl.DataFrame({"row_id": [f"{number:04}" for number in range(len(is_right))], "correct": is_right})


def build_runner(runs):
    """Return a runner with outcomes of random rows: right answers by size, (seeds, n) each."""
    outcomes = {
        ("random", size, seed): Outcome(key="", outcomes=build_table(row > 0), facts={})
        for size, table in runs.items()
        for seed, row in enumerate(table)
    }
    experiment = SimpleNamespace(metric=find_metric("accuracy", "classification"))
    rankings = SimpleNamespace(redraw=1.0)  # all seeds choose from the same rows
    shared = {"rankings": rankings, "worker_pool": None, "n_workers": 1, "engine": "local", "on_progress": None}
    return ExperimentRunner(experiment=experiment, outcomes=outcomes, **shared)


def flat_runs(rng, *, seeds=3, rows=200, sizes=(10, 20, 40, 80, 160, 320), fall=0.0):
    row = rng.normal(1, 1, rows)
    return {
        size: row - fall * (size == 320) + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.6, (seeds, rows))
        for size in sizes
    }


def test_a_fall_is_reported_and_the_noise_of_a_flat_curve_is_not():
    rng = np.random.default_rng(3)
    (sentence,) = describe_dips(build_runner(flat_runs(rng, fall=1.5)), "random", [10, 20, 40, 80, 160, 320])
    assert sentence.startswith("from 160 to 320 rows the accuracy gets worse by 0.")
    flat = [describe_dips(build_runner(flat_runs(rng)), "random", [10, 20, 40, 80, 160, 320]) for _ in range(20)]
    # without Holm's correction, a third of all flat curves would show a dip
    assert sum(map(bool, flat)) <= 3


def test_sizes_that_take_more_steps_than_their_epochs_are_named():
    def describe(settings, sizes):
        experiment = SimpleNamespace(trainer=None, resolve_settings=lambda: settings.resolved("classification"))
        return describe_least_steps(SimpleNamespace(experiment=experiment, axis=None), sizes)

    (note,) = describe(TrainSettings(), [20, 200, 1000])
    assert note.startswith("sizes up to 200 rows took 80 optimizer steps, more than their 3 epochs")
    assert describe(TrainSettings(), [1000, 2000]) == []
    assert describe(TrainSettings(epochs=1), [20, 200]) == []


def test_a_wrong_method_is_reported_before_any_cell_runs(run_curve, own_cache, monkeypatch):
    ran = []
    monkeypatch.setattr(worker_pool, "train_and_measure", lambda *_: ran.append(1))
    with pytest.raises(NotFoundError, match="herding"):
        run_curve(methods="herdin", sizes=SIZES, max_time=100)
    with pytest.raises(SettingsError, match="balance"):
        run_curve(methods="stratified", method_settings={"stratified": {"balance": "even"}}, sizes=SIZES, max_time=100)
    assert ran == []


def test_a_folder_whose_first_cells_all_failed_is_read_back(grid_curve, tmp_path):
    curve, _ = grid_curve
    copy = shutil.copytree(curve.path, tmp_path / "copy")
    header, *lines = (copy / "curve.csv").read_text().splitlines()
    names = header.split(",")
    failed = {"method": "length", "n_rows": "8", "metric": "accuracy", "status": "failed", "reason": "no memory"}
    failures = [",".join((failed | {"seed": str(seed)}).get(name, "") for name in names) for seed in range(10, 150)]
    (copy / "curve.csv").write_text("\n".join([header, *failures, *lines]) + "\n")
    (copy / "manifest.json").write_bytes(curve.manifest.to_json())  # without a seal
    again = read_curve(copy)
    assert again.cells["value"].dtype == pl.Float64
    assert again.enough == curve.enough


def test_a_selector_with_settings_has_a_curve(run_curve):
    def longest(length):
        return length

    curve = run_curve(
        methods=[KCenter(metric="euclidean"), longest],
        sizes=[8, 16, 32],
        max_rows=32,
        seeds=2,
        grid=True,
        encoder="static",
    )
    assert set(curve.cells["method"]) == {"random", "k-center", "longest"}
    assert curve.manifest.content["method_settings"]["k-center"] == {"metric": "euclidean"}
