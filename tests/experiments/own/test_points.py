"""A curve of scores that were measured elsewhere: read as people write them, answered, refused."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError
from thresher.experiments.curve_io import read_curve
from thresher.experiments.own.points import read_points

SIZES = (100, 200, 400, 800, 1600, 3200)


def make_points(n_runs: int = 3, *, noise: float = 0.002, floor: float = 0.2) -> pl.DataFrame:
    """Return runs of the power law error = floor + 1.5 / sqrt(n), whose answer is known."""
    rng = np.random.default_rng(0)
    rows = [
        {"n_train": n, "run": f"r{run}", "acc": 1 - floor - 1.5 / n**0.5 + noise * rng.normal()}
        for n in SIZES
        for run in range(n_runs)
    ]
    return pl.DataFrame(rows)


def test_the_answer_is_that_of_the_law_which_made_the_points():
    # within a point of 3,200 rows: 1.5 / sqrt(n) <= 1.5 / sqrt(3200) + 0.01
    truth = (1.5 / (1.5 / 3200**0.5 + 0.01)) ** 2
    curve = th.learning_curve(points=make_points())
    (answer,) = curve.enough.values()
    assert answer.verdict == "enough"
    assert answer.rows == pytest.approx(truth, rel=0.1)
    assert answer.low <= answer.rows <= answer.high
    assert curve.content["metric"] == "acc"
    assert set(curve.content["methods"]) == {"rows"}


def test_all_forms_of_a_table_give_the_same_curve(tmp_path):
    points = make_points()
    points.write_csv(tmp_path / "a.csv")
    points.write_csv(tmp_path / "a.tsv", separator="\t")
    points.write_parquet(tmp_path / "a.parquet")
    points.write_ndjson(tmp_path / "a.jsonl")
    sources = [tmp_path / f"a.{suffix}" for suffix in ("csv", "tsv", "parquet", "jsonl")]
    curves = [th.learning_curve(points=source) for source in [*sources, points, points.to_dicts()]]
    assert len({curve.content["answer"] for curve in curves}) == 1


def test_arms_are_told_apart_and_repeats_need_no_seed():
    points = make_points().drop("run")
    better = points.with_columns(acc=pl.col("acc") + 0.05)
    table = pl.concat([points.with_columns(arm=pl.lit("random")), better.with_columns(arm=pl.lit("mine"))])
    content = th.learning_curve(points=table).content
    assert set(content["methods"]) == {"random", "mine"}
    assert [entry["method"] for entry in content["trade"]] == ["mine"] * len(SIZES)


def test_percent_and_losses_are_read_as_such():
    points = make_points()
    rates = th.learning_curve(points=points)
    percent = th.learning_curve(points=points.with_columns(pl.col("acc") * 100))
    assert percent.content["read"] == ["acc goes above 10, so it is read as percent"]
    few = read_points(points.with_columns(pl.col("acc") * 5))
    assert few.notes == ("acc goes above 1, so by its name it is read as percent",)
    assert percent.enough["rows"].rows == pytest.approx(rates.enough["rows"].rows, rel=0.01)
    judged = th.learning_curve(points=points.select("n_train", "run", grade=1 + 4 * pl.col("acc")))
    assert judged.content["read"][0].startswith("grade lies in 3.5")
    assert " of the score of all of them" in judged.content["answer"]
    low = th.learning_curve(points=points.select("n_train", "run", reward=pl.col("acc") - 1))
    assert low.content["methods"]["rows"]["band"][0]["median"] == pytest.approx(0.65 - 1, abs=0.01)
    loss = points.select("n_train", "run", eval_loss=1 - pl.col("acc"))
    assert not th.learning_curve(points=loss).content["is_higher_better"]
    mine = points.select("n_train", "run", score=5 * (1 - pl.col("acc")))
    assert not th.learning_curve(points=mine, lower_is_better=True).content["is_higher_better"]


def test_runs_without_a_score_are_left_out_and_single_runs_have_no_answer():
    points = make_points(2).with_columns(acc=pl.when(pl.int_range(pl.len()) > 0).then("acc"))
    curve = th.learning_curve(points=points)
    assert curve.cells["status"].to_list().count("failed") == 1
    single = th.learning_curve(points=make_points(1))
    assert single.content["answer"].startswith("Too few runs to tell")
    assert all(point["stderr"] is None for point in single.content["methods"]["rows"]["points"])
    assert not single.enough


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda t: t.drop("n_train"), {}, "must have a column with the number of rows.*rows=COLUMN"),
        (lambda t: t.with_columns(f1=pl.col("acc")), {}, "with the score.*score=COLUMN"),
        (lambda t: t, {"point_columns": "rows=n"}, "no column 'n' for the rows"),
        (lambda t: t, {"point_columns": "size=n"}, "ROLE=COLUMN"),
        (lambda t: t.with_columns(n_train=pl.lit(0.5)), {}, "whole numbers of rows from 1 on, found 0.5"),
        (lambda t: t.with_columns(run=pl.lit(1)), {}, "a seed of its own, found two of 100 rows"),
        (lambda t: t.clear(), {}, "one line per run, found none"),
        (lambda t: t, {"pool_rows": 50}, "at least the 3,200 rows"),
        (lambda t: t, {"within": 1.5}, "within must be below 1 for acc.*for 1.5 points write 1.5% or 0.015"),
        (lambda t: t, {"seeds": 9}, "nothing is trained, so seeds must be left out"),
        (lambda t: t, {"eval": "10%"}, "nothing is trained, so eval must be left out"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change, options, words):
    with pytest.raises(th.ThresherError, match=words):
        th.learning_curve(points=change(make_points()), **options)


def test_the_folder_is_that_of_a_curve(tmp_path, capsys):
    make_points().write_csv(tmp_path / "results.csv")
    arguments = ["curve", "--from", str(tmp_path / "results.csv"), "--pool-rows", "5000", "--target", "0.79"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "of the first 3,200" in said
    assert "acc 0.79:" in said
    assert (tmp_path / "out/report.html").is_file()
    assert read_curve(tmp_path / "out").content["pool"] == 5000
    # a table of cells that this program wrote is read back with its metric
    again = th.learning_curve(points=tmp_path / "out/curve.csv", pool_rows=5000)
    written = json.loads((tmp_path / "out/saturation.json").read_bytes())
    assert again.content["answer"] == written["answer"]
    assert again.content["metric"] == "acc"


def test_the_command_refuses_rows_and_their_options_beside_points(tmp_path, capsys):
    make_points().write_csv(tmp_path / "results.csv")
    arguments = ["curve", "--from", str(tmp_path / "results.csv")]
    for further, name in ((["pool.jsonl"], "pool"), (["--eval", "10%"], "eval"), (["--dry-run"], "dry_run")):
        assert main([*arguments, *further]) == 2
        assert f"so {name} must be left out" in capsys.readouterr().err
    assert main(["curve", "--lower-is-better", "--eval", "10%", "pool.jsonl"]) == 2
    assert "are of --from" in capsys.readouterr().err


def test_a_score_that_one_word_made_text_is_still_the_score(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("rows,epochs,score\n100,3,0.5\n200,3,0.6\n400,3,nan\n")
    points = read_points(path, None, lower_is_better=False)
    assert points.cells["value"].to_list() == [0.5, 0.6, None]
    path.write_text("rows,score\n100,55\n200,65%\n")
    with pytest.raises(InputError, match="column score: must hold numbers, found '65%'"):
        read_points(path, None, lower_is_better=False)


@pytest.mark.parametrize("name", ["err", "Error Rate", "eval/loss", "valLoss", "test-loss", "brier"])
def test_a_score_that_is_a_loss_by_its_name_is_one_in_any_spelling(name):
    points = read_points([{"rows": n, name: 1 / n, "seed": 0} for n in (50, 100, 200)], {"score": name})
    assert not points.is_higher_better


def test_a_score_of_unknown_name_is_said_to_be_taken_as_better_the_higher_it_is():
    table = [{"rows": n, "quality": 1 / n, "terror_f1": 0.5, "seed": 0} for n in (50, 100, 200)]
    points = read_points(table, {"score": "quality"})
    assert points.is_higher_better
    assert "more quality is taken to be better (give --lower-is-better where it is a loss)" in points.notes
    assert read_points(table, {"score": "terror_f1"}).is_higher_better
