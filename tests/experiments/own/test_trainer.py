"""A trainer of the user's own: a command in the place of the training, in curve and compare."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.experiments.comparison import read_comparison

TRAINER = """
import collections, json, sys
train, test, out = sys.argv[1:4]
rows = [json.loads(line) for line in open(train)]
asked = [json.loads(line) for line in open(test)]
by_word = collections.defaultdict(collections.Counter)
for row in rows:
    by_word[row["text"].split()[1]][row["label"]] += 1
usual = collections.Counter(row["label"] for row in rows).most_common(1)[0][0]
words = [row["text"].split()[1] for row in asked]
guesses = [max(by_word[word], key=by_word[word].get) if by_word[word] else usual for word in words]
is_right = [float(guess == row["label"]) for guess, row in zip(guesses, asked)]
with open(sys.argv[0] + ".log", "a") as log:
    print(len(rows), sys.argv[4:], file=log)
report = {"predictions": guesses, "accuracy": sum(is_right) / len(is_right)}
report["accuracy"] = is_right if KEPT == "values" else report["accuracy"]
json.dump({name: report[name] for name in ["predictions" if KEPT == "predictions" else "accuracy"]}, open(out, "w"))
"""


@pytest.fixture
def trainer(tmp_path):
    """Return what writes a program that reports in one of its forms, and returns the option."""

    def write(kept: str = "predictions", name: str = "train.py") -> str:
        path = tmp_path / name
        path.write_text(TRAINER.replace("KEPT", repr(kept)))
        return f"command:{sys.executable} {path} {{train}} {{eval}} {{out}} {{seed}}"

    return write


def count_runs(tmp_path) -> int:
    return len((tmp_path / "train.py.log").read_text().splitlines())


def test_compare_judges_by_the_users_trainer_and_pays_once(pool, test_rows, trainer, tmp_path, own_cache):
    options = {"methods": "prototypes", "budget": "12,24", "seeds": 2, "trainer": trainer()}
    first = th.compare(pool, eval=test_rows, **options, out=tmp_path / "out")
    assert set(first.cells["status"]) == {"done"}
    assert first.cells["n"].unique().to_list() == [len(test_rows)]
    n_runs = count_runs(tmp_path)
    again = th.compare(pool, eval=test_rows, **{**options, "budget": "12,24"})
    assert count_runs(tmp_path) == n_runs
    assert again.content["verdicts"][0]["difference"] == first.content["verdicts"][0]["difference"]
    # predictions carry the other rates, too
    outcomes = pl.read_parquet(tmp_path / "out/outcomes.parquet")
    assert {"label", "prediction", "correct"} <= set(outcomes.columns)
    assert "intervals" not in first.manifest.content
    assert read_comparison(tmp_path / "out").content == first.content
    assert "--trainer 'command:" in th.report(tmp_path / "out").read_text().replace("&#39;", "'")


def test_numbers_per_row_and_one_number_give_the_same_values(pool, test_rows, trainer, own_cache):
    options = {"methods": "length", "budget": "24", "seeds": 2}
    by_form = {
        form: th.compare(pool, eval=test_rows, **options, trainer=trainer(form))
        for form in ("predictions", "values", "accuracy")
    }
    values = {form: result.cells["value"].to_list() for form, result in by_form.items()}
    assert by_form["values"].verdicts[0].effect == by_form["predictions"].verdicts[0].effect
    assert values["accuracy"] == pytest.approx(values["predictions"])
    # one number says nothing of test rows: the intervals are over seeds alone, and it is said
    assert by_form["accuracy"].manifest.content["intervals"] == "seeds"
    assert by_form["accuracy"].verdicts[0].effect.dof == pytest.approx(1.0)


def test_a_curve_runs_by_the_users_trainer(pool, test_rows, trainer, own_cache):
    for form in ("accuracy", "predictions"):
        options = {"methods": "random", "sizes": "10,20,40", "seeds": 2, "grid": True, "trainer": trainer(form)}
        curve = th.learning_curve(pool, eval=test_rows, **options)
        assert curve.content["metric"] == "accuracy"
        assert [point["n_rows"] for point in curve.content["methods"]["random"]["points"]] == [10, 20, 40, 80]
        assert "random" in curve.enough


def run_one(pool, test_rows, command, **options):
    return th.compare(pool, eval=test_rows, methods="length", budget="24", seeds=2, trainer=command, **options)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('no GPU')", r"must exit with 0, got 1 \(no GPU\)"),
        ("print('done')", "as JSON, got 'done'"),
        ("print('{\"acc\": 0.5}')", "found acc"),
        ("print('{\"accuracy\": [1, 0]}')", r"must report .*, got \[1, 0\]"),
        ("print('{\"accuracy\": null}')", "must report .*, got None"),
        ("print('{\"predictions\": [1]}')", "a prediction for each of the 40 test rows, got 1"),
    ],
)
def test_what_a_trainer_does_wrong_is_one_sentence(pool, test_rows, tmp_path, own_cache, program, words):
    (tmp_path / "bad.py").write_text(program)
    with pytest.raises(th.ThresherError, match=words):
        run_one(pool, test_rows, f"command:{sys.executable} {tmp_path}/bad.py {{train}} {{eval}}")


def test_a_run_has_a_time_limit_and_leaves_no_process(pool, test_rows, tmp_path, own_cache):
    mark = tmp_path / "late"
    (tmp_path / "slow.py").write_text(
        f"import subprocess, time\nsubprocess.Popen(['sh', '-c', 'sleep 2; touch {mark}'])\ntime.sleep(60)\n"
    )
    started = time.monotonic()
    with pytest.raises(th.ThresherError, match=r"must end within 0.5 s, and did not; raise --trainer-time"):
        run_one(pool, test_rows, f"command:{sys.executable} {tmp_path}/slow.py {{train}} {{eval}}", trainer_time=0.5)
    assert time.monotonic() - started < 40
    time.sleep(2.5)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": "python train.py"}, "must be 'command:PROGRAM"),
        ({"command": "command:python train.py {train}"}, "with {train} and {eval}"),
        ({"trainer_time": "soon"}, "trainer_time must be a time above 0"),
        ({"settings": th.TrainSettings(epochs=1)}, "train must be left out"),
        ({"shots": "0,4"}, "shots must be left out"),
        ({"metric": "command:wc"}, "the trainer measures, so metric must be a name"),
    ],
)
def test_options_that_do_not_fit_are_refused(pool, test_rows, options, words):
    command = options.pop("command", "command:python train.py {train} {eval}")
    with pytest.raises(th.ThresherError, match=words):
        run_one(pool, test_rows, command, **options)


def test_a_changed_program_is_another_trainer(pool, test_rows, trainer, tmp_path, own_cache):
    run_one(pool, test_rows, trainer())
    n_runs = count_runs(tmp_path)
    command = trainer()
    with (tmp_path / "train.py").open("a") as file:
        file.write("# another version\n")
    run_one(pool, test_rows, command)
    assert count_runs(tmp_path) == 2 * n_runs


def test_the_command_line_takes_a_trainer(pool_rows, trainer, tmp_path, capsys, own_cache):
    for name, rows in (("pool", pool_rows[:80]), ("test", pool_rows[80:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["compare", f"{tmp_path}/pool.jsonl", "--eval", f"{tmp_path}/test.jsonl", "--methods", "length"]
    arguments += ["--budget", "24", "--seeds", "2", "--workers", "1", "--trainer", trainer("accuracy")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "intervals are over seeds alone" in capsys.readouterr().err
    assert main([*arguments, "--dry-run"]) == 2
    assert "how long a trainer of your own takes is not known" in capsys.readouterr().err


def test_the_program_of_the_documentation_runs(pool, test_rows, tmp_path, own_cache):
    page = (Path(__file__).parents[3] / "docs/experiments.md").read_text()
    program = next(block for block in page.split("```py\n") if block.startswith("# train.py"))
    (tmp_path / "train.py").write_text(program.partition("```")[0])
    command = f"command:{sys.executable} {tmp_path}/train.py {{train}} {{eval}} {{out}} {{seed}}"
    result = run_one(pool, test_rows, command)
    assert set(result.cells["status"]) == {"done"}
    # the words name the class in 4 of 5 rows
    assert result.cells["value"].min() > 0.5
