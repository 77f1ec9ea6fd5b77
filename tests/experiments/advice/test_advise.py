"""The whole question in one call: each answer comes from the folder of its step."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import thresher as th
import thresher.experiments.advice.advise as steps_of_advice
from thresher.artifacts.manifest import Manifest
from thresher.cli.main import main
from thresher.errors import OutputError, SettingsError
from thresher.experiments.advice.size import choose_size
from thresher.reporting.pages.reproduce import build_command
from thresher.trainer.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUICK = TrainSettings(max_steps=2, batch_size=8, max_length=32)


def make_rows(n, seed):
    """Return texts of random words, with the label of the last one."""
    rng, words = np.random.default_rng(seed), ["apple", "leaf", "sky", "fox", "dog", "river", "stone", "cloud"]
    rows = []
    for number in range(n):
        label = ("red", "green")[number % 2]
        text = " ".join([*rng.choice(words, 6), *rng.choice(list("abcdefghij"), 6), label])
        rows.append({"text": text, "label": label})
    return rows


@pytest.fixture(scope="module")
def call(tiny_bert, tmp_path_factory):
    out = tmp_path_factory.mktemp("advice") / "out"
    options = {"eval": make_rows(30, 1), "model": tiny_bert, "settings": QUICK, "seeds": 2, "out": out}
    return make_rows(160, 0), options


@pytest.fixture(scope="module")
def advice(call):
    rows, options = call
    return th.advise([*rows, rows[0], dict(rows[1])], **options)  # two repeats to clean away


def test_it_answers_the_five_questions_from_its_steps(advice):
    content = advice.content
    questions = [each["question"] for each in content["answers"]]
    assert questions == ["Is it worth it?", "Which rows?", "How many?", "What did it break?", "What next?"]
    metrics = json.loads((advice.path / "adapter" / "metrics.json").read_text())
    assert metrics["base"]["sentence"].lower() in content["answers"][0]["answer"].lower()
    assert content["pool"]["clean"] <= content["pool"]["given"] - 2
    assert sum(content["dropped"].values()) == content["pool"]["given"] - content["pool"]["clean"]
    assert content["rows"]["n"] == metrics["counts"]["given"]
    assert content["left_out"] == []
    for folder in ("clean", "curve", "subset", "adapter"):
        assert (advice.path / folder / "manifest.json").is_file()
    assert len(advice.list_facts()) == 5
    assert th.open(advice.path).list_facts() == advice.list_facts()


def test_no_feature_is_computed_to_take_all_rows(advice):
    content = Manifest.read(advice.path / "subset").content
    assert advice.content["rows"]["n"] == advice.content["pool"]["clean"]
    assert content["method"] == "random"
    assert not content["features"]


def test_the_same_call_finds_every_step_done(advice, call):
    rows, options = call
    before = {path: path.stat().st_mtime_ns for path in advice.path.glob("*/manifest.json")}
    again = th.advise([*rows, rows[0], dict(rows[1])], **options)
    assert again.content == advice.content
    assert {path: path.stat().st_mtime_ns for path in advice.path.glob("*/manifest.json")} == before


def test_its_page_opens_with_the_answer(advice):
    page = th.report(advice.path).read_text()
    assert advice.content["answers"][0]["answer"].split(":")[0] in page
    assert "thresher advise" in page


def test_test_rows_of_unknown_labels_are_told_with_the_first_answer(call, tmp_path):
    rows, options = call
    own = [*options["eval"], {"text": "a text of a label that no row of the pool has", "label": "blue"}]
    short = th.advise(rows, **{**options, "eval": own, "out": tmp_path / "unknown", "max_time": 0.001})
    assert "1 of 31 held-out rows have labels that no training row has" in short.content["answers"][0]["answer"]


def test_what_the_time_leaves_out_is_listed(call, tmp_path):
    rows, options = call
    short = th.advise(rows, **{**options, "out": tmp_path / "short", "max_time": 0.001})
    assert short.content["left_out"] == ["curve", "adapter"]
    assert "longer --max-time to add what was left out: curve, adapter" in short.content["answers"][-1]["answer"]
    assert short.content["answers"][0]["answer"].startswith("Not measured: time ran out")
    assert short.content["answers"][3]["answer"] == "Does not apply: a classifier writes no text."


def test_it_needs_a_folder_of_its_own(call, advice, tmp_path):
    rows, options = call
    with pytest.raises(SettingsError, match="advise: out must be a folder"):
        th.advise(rows, **{**options, "out": None})
    with pytest.raises(OutputError, match="must be empty or hold advice, found 'adapter'"):
        th.advise(rows, **{**options, "out": advice.path / "adapter"})


def test_what_the_time_left_out_is_done_by_a_call_with_more_of_it(call, advice, tmp_path):
    rows, options = call
    again = {**options, "out": tmp_path / "out"}
    short = th.advise([*rows, rows[0], dict(rows[1])], **again, max_time=0.001)
    assert short.content["left_out"] == ["curve", "adapter"]
    assert (tmp_path / "out" / "subset").is_dir()
    longer = th.advise([*rows, rows[0], dict(rows[1])], **again, max_time="1h")
    assert longer.content["left_out"] == []
    assert longer.content["answers"][:4] == advice.content["answers"][:4]


def test_a_call_that_is_killed_in_its_last_step_pays_for_nothing_twice(call, tmp_path, monkeypatch):
    rows, options = call
    call_with = {**options, "out": tmp_path / "out", "max_time": "1h"}
    real = steps_of_advice.train

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(steps_of_advice, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        th.advise(rows, **call_with)
    monkeypatch.setattr(steps_of_advice, "train", real)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/manifest.json")}
    assert len(before) == 3
    events = []
    th.advise(rows, **call_with, on_progress=events.append)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not [event for event in events if event.stage == "cells"]


def test_another_question_needs_another_folder(call, advice):
    rows, options = call
    with pytest.raises(OutputError, match="holds advice on other rows, or with other settings"):
        th.advise([*rows, rows[0], dict(rows[1])], **{**options, "budget": 16})


def test_a_budget_bounds_the_curve_and_the_rows_that_are_trained_on(call, tmp_path):
    rows, options = call
    result = th.advise(rows, **{**options, "out": tmp_path / "out", "budget": "50%"})
    curve = json.loads((tmp_path / "out" / "curve" / "saturation.json").read_text())
    assert curve["of"] == 80
    assert set(curve["methods"]) == {"random", "auto"}
    assert result.content["rows"]["n"] <= 80
    metrics = json.loads((tmp_path / "out" / "adapter" / "metrics.json").read_text())
    assert metrics["counts"]["given"] == result.content["rows"]["n"]
    with pytest.raises(SettingsError, match="budget must be a number of rows or a share"):
        th.advise(rows, **{**options, "budget": "200ktok"})


def test_rows_of_a_target_are_measured_beside_random_ones(tiny_llama, tmp_path):
    sums = [(a, b) for a in range(10) for b in range(9)]
    rows = [{"prompt": f"add {a} and {b}", "completion": f"{a + b}"} for a, b in sums]
    task = [{"prompt": f"say the word w{n} backwards", "completion": f"{n}w"} for n in range(30)]
    settings = TrainSettings(max_steps=2, batch_size=4, max_length=128, eval_generations=0)
    options = {"model": tiny_llama, "settings": settings, "seeds": 2, "general": "none", "out": tmp_path / "out"}
    result = th.advise([*rows, *task[:20]], eval=task[20:25], target=task[25:], **options)
    curve = json.loads((tmp_path / "out" / "curve" / "saturation.json").read_text())
    assert set(curve["methods"]) == {"random", "auto"}
    picks = pl.read_parquet(tmp_path / "out" / "curve" / "picks.parquet").filter(pl.col("method") == "auto")
    first = set(picks.filter(pl.col("rank") < 16)["row_id"])
    wanted = set(th.load(task[:20]).frame["row_id"])
    assert len(first & wanted) >= 14  # of 110 rows, the twenty of the task come first
    assert result.content["method"] == "auto"
    manifest = Manifest.read(tmp_path / "out")
    manifest.content["run"]["target"] = ["task.jsonl"]  # given objects have no file
    assert "--target task.jsonl --model" in build_command(manifest.content, tmp_path / "out")
    subset = pl.read_ndjson(tmp_path / "out" / "subset" / "subset.jsonl")
    assert len(subset) == result.content["rows"]["n"]


def test_without_a_curve_all_rows_are_taken_or_a_tenth_by_a_target():
    assert choose_size(None, "random", 50).n_rows == 50
    assert choose_size(None, "auto", 5000, most=200).n_rows == 200
    assert choose_size(None, "auto", 5000, has_target=True).n_rows == 500
    assert choose_size(None, "auto", 5000, has_target=True, most=64).n_rows == 64
    assert choose_size(None, "auto", 40, has_target=True).n_rows == 32


@pytest.mark.parametrize(
    ("losses", "stderr", "seeds", "expected"),
    [
        ((0.6, 0.8, 1.0), 0.05, 5, 20),  # ever further from the task
        ((0.8, 0.6, 1.0), 0.05, 5, 40),
        ((0.6, 0.8, 1.0), 0.3, 5, 80),  # noise
        ((1.2, 1.1, 1.0), 0.05, 5, 80),
        ((0.82, 1.0, 1.0), 0.05, 5, 80),  # 2.5 errors: p = .035 (t, 8), and .069 for two
        ((0.79, 1.0, 1.0), 0.05, 5, 20),  # 3.0: .018 and .036
        ((0.6, 0.8, 1.0), 0.05, 2, 80),  # 5.7 errors: .030 (t, 2) and .060
        ((0.5, 0.8, 1.0), 0.05, 2, 20),  # 7.1: .019 and .039
        ((0.6, 0.8, 1.0), 0.05, 1, 80),  # one run each
    ],
)
def test_rows_that_make_it_worse_are_left_out(losses, stderr, seeds, expected):
    points = [
        {"n_rows": size, "value": loss, "stderr": stderr, "n_seeds": seeds}
        for size, loss in zip((20, 40, 80), losses, strict=True)
    ]
    entry = {"points": points, "enough": {"within": 0.01}}
    content = {"of": 80, "is_higher_better": False, "methods": {"auto": entry, "random": entry}}
    curve = SimpleNamespace(content=content, enough={})
    assert choose_size(curve, "auto", 80).n_rows == expected
    assert choose_size(curve, "random", 80).n_rows == 80


def test_the_command_prints_the_answers(call, tmp_path, capsys):
    rows, options = call
    for name, part in (("pool", rows[:40]), ("test", options["eval"])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    words = ["advise", str(tmp_path / "pool.jsonl"), "--eval", str(tmp_path / "test.jsonl"), "--seeds", "2"]
    words += ["--model", str(options["model"]), "--train", "max_steps=2", "--train", "max_length=32"]
    assert main([*words, "--workers", "1", "--max-time", "0.001", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "Is it worth it? Not measured" in said
    assert "What next? Run the same command with a longer" in said
