"""Commands read several sources side by side, and the rows beside a pool in their own way."""

import json

import pytest

from thresher.cli.main import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with an Alpaca file, and a CSV file and a folder of other columns."""
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": f"Tell {i} of {['rope', 'wind'][i % 2]}", "output": f"Tale {i}"} for i in range(8)]
    (tmp_path / "alpaca.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quiz = "q,a,good\n" + "".join(f"Where is {i}?,There {i},{i % 2}\n" for i in range(6))
    (tmp_path / "quiz.csv").write_text(quiz)
    (tmp_path / "splits").mkdir()
    for name in ("train", "test"):
        (tmp_path / "splits" / f"{name}.csv").write_text(quiz.replace("Where", name.title()))
    return tmp_path


def run(capsys, *words):
    code = main([str(word) for word in words])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def refused(capsys, *words):
    code, out, err = run(capsys, *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    return err


QUIZ = "quiz.csv:prompt=q,response=a,wanted=good"
RANDOM = ("--method", "random", "--budget", "100%")


def test_select_reads_sources_side_by_side(folder, capsys):
    for words in (["alpaca.jsonl", "--source", QUIZ], ["--source", "alpaca.jsonl", "--source", QUIZ]):
        code, out, err = run(capsys, "select", *words, *RANDOM)
        assert code == 0
        rows = [json.loads(line) for line in out.splitlines()]
        assert len(rows) == 11
        assert {"prompt": "Where is 3?", "response": "There 3"} in rows
        assert "from alpaca.jsonl (8 rows, alpaca: prompt=instruction, response=output) and quiz.csv (6 rows" in err
        assert "3 rejected as unusable" in err


def test_a_toml_file_of_sources_is_a_pool(folder, capsys):
    (folder / "mix.toml").write_text(
        '[[sources]]\npath = "alpaca.jsonl"\n\n[[sources]]\npath = "splits"\nsplit = "test"\nwanted = "good"\n'
        'columns = {prompt = "q", response = "a"}\n'
    )
    code, out, _ = run(capsys, "select", "mix.toml", *RANDOM, "--quiet")
    assert (code, len(out.splitlines())) == (0, 11)
    assert "Test is 1?" in out
    assert run(capsys, "select", "mix.toml", *RANDOM, "--dry-run")[0] == 0


@pytest.mark.parametrize("command", ["select", "plan", "score", "clean", "train", "curve", "compare", "tune"])
def test_every_command_refuses_a_source_of_which_nothing_is_usable(folder, capsys, command):
    source = ["alpaca.jsonl", "--source", "quiz.csv:prompt=q,response=a,wanted=q"]
    words = {
        "select": ["select", *source, *RANDOM],
        "plan": ["select", *source, *RANDOM, "--dry-run"],
        "score": ["score", *source, "--features", "length"],
        "clean": ["curate", "clean", *source, "--out", "out"],
        "train": ["train", *source, "--out", "out"],
        "curve": ["curve", *source, "--eval", "10%", "--out", "out"],
        "compare": ["compare", *source, "--eval", "10%", "--budget", "4", "--out", "out"],
        "tune": ["tune", *source, "--eval", "10%", "--out", "out"],
    }[command]
    err = refused(capsys, *words)
    assert err.startswith("thresher: quiz.csv: at least one usable row is required, found none in 6 rows")
    assert not (folder / "out").exists()


def test_rows_to_evaluate_on_may_have_other_columns_and_a_split(folder, capsys):
    options = ["--eval-split", "test", "--eval-map", "prompt=q,response=a", "--eval-wanted", "good"]
    code, _, err = run(capsys, "curate", "clean", "alpaca.jsonl", "--eval", "splits", *options, "--out", "a")
    assert code == 0
    assert "splits: 6 rows read (sft; mapped: prompt=q, response=a, wanted=good)" in err
    text = "splits:test:prompt=q,response=a,wanted=good"
    code, _, err = run(capsys, "curate", "clean", "alpaca.jsonl", "--eval", text, "--out", "b")
    assert code == 0
    contents = [json.loads((folder / name / "manifest.json").read_text()) for name in "ab"]
    assert contents[0]["eval"] == contents[1]["eval"]


def test_train_and_curve_take_the_same_options(folder, capsys):
    options = ["--eval", "splits", "--eval-split", "test", "--eval-map", "prompt=q,response=a", "--eval-wanted", "good"]
    code, _, err = run(
        capsys, "train", "alpaca.jsonl", *options, "--model", "tiny", "--max-steps", "1", "--out", "adapter"
    )
    assert code == 0, err
    assert "eval: 6 rows read (sft; mapped: prompt=q, response=a, wanted=good)" in err
    assert json.loads((folder / "adapter" / "metrics.json").read_text())["counts"]["eval"]["rows"] == 3
    err = refused(capsys, "curve", "alpaca.jsonl", *options[:-2], "--out", "curve", "--quiet")
    assert "give --wanted good to keep the rows" in err


def test_a_subset_is_trained_with_test_rows_of_another_schema(folder, capsys):
    assert run(capsys, "select", "alpaca.jsonl", "--source", QUIZ, *RANDOM, "--out", "chosen")[0] == 0
    test = "splits:test:prompt=q,response=a,wanted=good"
    code, _, err = run(
        capsys, "train", "chosen", "--eval", test, "--model", "tiny", "--max-steps", "1", "--out", "adapter"
    )
    assert code == 0, err
    assert "eval: 6 rows read (sft; mapped: prompt=q, response=a, wanted=good)" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["curate", "clean", "alpaca.jsonl", "--eval-split", "test"], "--eval-split: must be given with --eval"),
        (["train", "alpaca.jsonl", "--eval-map", "text=t"], "--eval-map: must be given with --eval"),
        (
            ["train", "alpaca.jsonl", "--eval", "10%", "--eval-split", "test"],
            "rows of their own are required, got --eval 10%",
        ),
        (
            ["tune", "alpaca.jsonl", "--eval", "10%", "--eval-split", "test"],
            "rows of their own are required, got --eval 10%",
        ),
        (["score", "--features", "length"], "rows are required, found none"),
        (["train", "alpaca.jsonl:text=b,prompt=c"], "roles prompt, text do not fit together"),
    ],
)
def test_settings_of_rows_that_are_not_there_are_refused(folder, capsys, words, message):
    out = [] if words[0] == "score" else ["--out", "out"]
    assert message in refused(capsys, *words, *out)


def test_rows_that_a_method_does_not_take_are_refused_before_they_are_read(folder, capsys):
    refused(capsys, "select", "alpaca.jsonl", *RANDOM, "--existing", "quiz.csv")
    refused(capsys, "select", "alpaca.jsonl", *RANDOM, "--target", "no such file")
    refused(capsys, "score", "alpaca.jsonl", "--features", "length", "--examples", "no such file")


def test_rows_beside_the_pool_may_carry_settings(folder, capsys):
    options = ["--method", "k-center", "--encoder", "static", "--budget", "2", "--existing", QUIZ]
    code, out, err = run(capsys, "select", "alpaca.jsonl", *options)
    assert (code, len(out.splitlines())) == (0, 2)
    assert "6 rows read (sft; mapped: prompt=q, response=a, wanted=good)" in err


def test_rows_beside_the_pool_are_read_as_it_where_they_have_its_columns(folder, capsys):
    marked = "".join(json.dumps({"q": f"Say {i}", "a": f"No {i}", "ok": i > 0}) + "\n" for i in range(3))
    (folder / "marked.jsonl").write_text(marked)
    options = ["--map", "prompt=q,response=a", "--wanted", "good", "--method", "k-center", "--encoder", "static"]
    code, _, err = run(capsys, "select", "quiz.csv", *options, "--budget", "1", "--existing", "alpaca.jsonl")
    assert code == 0
    assert "alpaca.jsonl: 8 rows read (sft; alpaca: " in err
    code, _, err = run(capsys, "select", "quiz.csv", *options, "--budget", "1", "--existing", "splits:test")
    assert code == 0
    assert "3 of 6 rows cannot be used" in err


def test_settings_of_rows_beside_the_pool_are_no_wish(folder, capsys):
    out = ["--eval", "quiz.csv:prompt=q,response=b", "--out", "out"]
    assert "column 'b' is required" in refused(capsys, "curate", "clean", "alpaca.jsonl", *out)
    out = ["--eval", "alpaca.jsonl", "--eval-wanted", "good", "--out", "out"]
    assert "column 'good' is required" in refused(
        capsys, "curate", "clean", "quiz.csv:prompt=q,response=a,wanted=good", *out
    )
