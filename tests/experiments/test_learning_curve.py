import json
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from thresher.dataset import load
from thresher.errors import InputError, NotFoundError, OutputError, SettingsError
from thresher.evaluation.estimate import mean_over_seeds
from thresher.evaluation.metric import find_metric
from thresher.evaluation.saturation import fit_curve
from thresher.experiments.cells import worker_pool
from thresher.experiments.cells.cell import Outcome
from thresher.experiments.curve_io import describe_dips, describe_limits, read_curve
from thresher.experiments.learning_curve import learning_curve
from thresher.experiments.runner import ExperimentRunner
from thresher.selectors.k_center import KCenter

SIZES = [8, 16, 32, 64]
GRID = {"methods": "random,length", "sizes": SIZES, "seeds": 2, "grid": True}
GRID |= {"slices": ["half"], "targets": [0.5], "more": [100]}


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


def test_slices_divide_the_test_set(grid_curve, test_rows):
    curve, _ = grid_curve
    table = pl.read_csv(curve.path / "slices.csv", schema_overrides={"group": pl.String})
    sums = table.group_by("method", "n_rows", "slice").agg(pl.col("n").sum())
    assert set(sums["n"]) == {len(test_rows)}
    assert set(table["slice"]) == {"label", "half"}


def test_the_answer_has_a_status_and_the_questions_an_answer(grid_curve):
    curve, _ = grid_curve
    assert set(curve.saturation) == {"random", "length"}
    assert curve.saturation["random"].status in ("reached", "extrapolated", "not identifiable")
    entry = curve.content["methods"]["random"]
    assert [target["target"] for target in entry["targets"]] == [0.5]
    assert [gain["more"] for gain in entry["gains"]] == [100]
    assert sum(entry["laws"].values()) == pytest.approx(1, abs=1e-5)
    assert curve.content["cost_share"] == 1


def test_the_same_call_reads_the_folder_back(run_curve, grid_curve):
    curve, _ = grid_curve
    again = run_curve(**GRID, out=curve.path)
    assert again.cells.equals(curve.cells)
    assert again.saturation == curve.saturation
    with pytest.raises(OutputError):
        run_curve(sizes=SIZES, out=curve.path)


def test_cells_of_an_earlier_command_are_not_run_again(run_curve, grid_curve, monkeypatch):
    def refuse(*_):
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(worker_pool, "train_and_measure", refuse)
    again = run_curve(methods=["random"], sizes=SIZES[:3], seeds=2, grid=True)
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


def test_max_runs_is_kept(run_curve):
    curve = run_curve(methods=["random"], sizes=SIZES, max_runs=7)
    assert len(curve.cells) <= 7
    assert curve.content["stopped"] == "7 runs were allowed"


def test_no_time_at_all_still_gives_the_first_batch(run_curve, tmp_path):
    curve = run_curve(methods=["random"], sizes=SIZES, max_time=1e-9, out=tmp_path / "out")
    assert len(curve.cells) == 1
    assert curve.saturation == {}


def test_no_answer_is_firm_before_the_largest_size_was_seen(run_curve):
    curve = run_curve(methods=["random"], sizes=[8, 10, 12, 14, 80], seeds=8, delta=0.9)
    assert curve.content["stopped"] == "the answer is firm"
    assert 80 in set(curve.cells["n_rows"])


def test_equal_steps_gives_every_size_the_steps_of_the_largest(run_curve, own_cache):
    curve = run_curve(methods=["random"], sizes=[8, 16, 64], seeds=2, grid=True, equal="steps")
    assert set(curve.cells["steps"]) == {8}  # 64 rows in batches of 8


def test_a_cell_that_fails_is_recorded_and_the_rest_goes_on(run_curve, own_cache, monkeypatch, tmp_path):
    real = worker_pool.train_and_measure

    def fail_at_16(context, work):
        if len(context.split.train) == 16:
            raise ValueError("a bad step")
        return real(context, work)

    monkeypatch.setattr(worker_pool, "train_and_measure", fail_at_16)
    curve = run_curve(methods=["random"], sizes=SIZES, seeds=2, grid=True, out=tmp_path / "out")
    failed = curve.cells.filter(pl.col("status") == "failed")
    assert failed["n_rows"].to_list() == [16, 16]
    assert "a bad step" in failed["reason"][0]
    assert [p["n_rows"] for p in curve.content["methods"]["random"]["points"]] == [8, 32, 64]


def test_when_every_cell_fails_the_first_reason_is_reported(run_curve, own_cache, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such device")

    monkeypatch.setattr(worker_pool, "train_and_measure", fail)
    with pytest.raises(InputError, match="all 12 cells failed.*no such device"):
        run_curve(methods="length", sizes=SIZES[:3], seeds=2, grid=True)


def test_a_test_row_in_the_pool_is_refused_by_name_or_dropped(pool_rows, tiny_bert, quick):
    pool, leaky = load(pool_rows[:80]), load(pool_rows[78:])
    with pytest.raises(InputError, match=r"found 2 of 42 there .*:"):
        learning_curve(pool, eval=leaky, sizes=SIZES, model=tiny_bert, settings=quick)
    curve = learning_curve(
        pool, eval=leaky, methods=["random"], sizes=[8, 16, 32], seeds=2, grid=True, overlap="drop", model=tiny_bert,
        settings=quick,
    )  # fmt: skip
    assert curve.content["pool"] == 78


def test_a_share_of_the_pool_is_held_out(pool, tiny_bert, quick):
    curve = learning_curve(
        pool, eval="25%", methods=["random"], sizes=[8, 16, 32], seeds=2, grid=True, model=tiny_bert, settings=quick
    )
    assert curve.content["pool"] == 60
    assert set(curve.cells["n"]) == {20}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sizes": [8]}, InputError, "at least 3 sizes"),
        ({"sizes": [8, 16, 1000]}, InputError, "at most the 80 rows of the pool, got 1,000"),
        ({"sizes": [8, 16, 2.5]}, SettingsError, "whole numbers"),
        ({"sizes": [0, 16, 32]}, SettingsError, "at least 1"),
        ({"seeds": 1}, SettingsError, "seeds must be a whole number of at least 2"),
        ({"methods": "randon"}, NotFoundError, "random"),
        ({"metric": "acuracy"}, NotFoundError, "accuracy"),
        ({"delta": 0.0}, SettingsError, "delta must be a number above 0"),
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


def build_runner(runs):
    """Return a runner with outcomes of random rows: right answers by size, (seeds, n) each."""
    outcomes = {
        ("random", size, seed): Outcome(key="", outcomes=pl.DataFrame({"correct": row > 0}), facts={})
        for size, table in runs.items()
        for seed, row in enumerate(table)
    }
    experiment = SimpleNamespace(metric=find_metric("accuracy", "classification"))
    shared = {"rankings": None, "worker_pool": None, "n_workers": 1, "engine": "local", "on_progress": None}
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


def test_an_answer_that_is_the_smallest_size_or_below_the_noise_is_reported_to_be_so():
    rng = np.random.default_rng(0)
    sizes = [20, 40, 80, 160]
    flat = fit_curve(sizes, [list(0.5 + rng.normal(0, 0.03, 3)) for _ in sizes], is_higher_better=True)
    wide, fine = (describe_limits(flat, flat.saturation(delta=delta)) for delta in (0.2, 0.001))
    assert len(wide) == 1
    assert "already at 20 rows, the smallest size" in wide[0]
    assert any("a larger delta" in note for note in fine)
    steep = [list(0.9 - 0.5 * np.exp(-n / 40) + rng.normal(0, 0.001, 3)) for n in sizes]
    fit = fit_curve(sizes, steep, is_higher_better=True)
    assert describe_limits(fit, fit.saturation(delta=0.02)) == []


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
    assert again.saturation == curve.saturation


def test_a_selector_with_settings_has_a_curve(run_curve):
    def longest(length):
        return length

    curve = run_curve(
        methods=[KCenter(metric="euclidean"), longest], sizes=[8, 16, 32], seeds=2, grid=True, encoder="static"
    )
    assert set(curve.cells["method"]) == {"random", "k-center", "longest"}
    assert curve.manifest.content["method_settings"]["k-center"] == {"metric": "euclidean"}
