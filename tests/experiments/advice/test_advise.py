"""The whole question in one call: each answer comes from the folder of its step."""

import json

import numpy as np
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import OutputError, SettingsError
from thresher.experiments.advice.advise import choose_size
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
    assert str(advice).count("\n") == 4


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


def test_what_the_time_leaves_out_is_listed(call, tmp_path):
    rows, options = call
    short = th.advise(rows, **{**options, "out": tmp_path / "short", "max_time": 0.001})
    assert short.content["left_out"] == ["curve", "adapter"]
    assert "longer --max-time: curve, adapter was left out" in short.content["answers"][-1]["answer"]
    assert short.content["answers"][0]["answer"].startswith("Not asked: the time was over")


def test_it_needs_a_folder_of_its_own(call, advice, tmp_path):
    rows, options = call
    with pytest.raises(SettingsError, match="advise: out must be a folder"):
        th.advise(rows, **{**options, "out": None})
    with pytest.raises(OutputError, match="must be empty or hold advice, found 'adapter'"):
        th.advise(rows, **{**options, "out": advice.path / "adapter"})


def test_without_a_curve_all_rows_are_taken():
    assert choose_size(None, "random", 50)[0] == 50


def test_the_command_prints_the_answers(call, tmp_path, capsys):
    rows, options = call
    for name, part in (("pool", rows[:40]), ("test", options["eval"])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    words = ["advise", str(tmp_path / "pool.jsonl"), "--eval", str(tmp_path / "test.jsonl"), "--seeds", "2"]
    words += ["--model", str(options["model"]), "--train", "max_steps=2", "--train", "max_length=32"]
    assert main([*words, "--workers", "1", "--max-time", "0.001", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "Is it worth it? Not asked" in said
    assert "What next? Run the same command again" in said
