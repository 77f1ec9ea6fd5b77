"""The command line of jobs: what it prints, logs and exits with."""

import errno
import inspect
import json
import os
import subprocess
import sys

import pytest

from thresher.cli import curate_job
from thresher.cli.main import main
from thresher.jobs import run_job


@pytest.fixture
def ready_kit(kit, rows):
    kit.write()
    kit.add("a", rows(6, 1))
    return kit


def test_the_verb_has_the_names_and_defaults_of_the_function():
    function = {
        name: one.default
        for name, one in inspect.signature(run_job).parameters.items()
        if name not in ("path", "on_event", "announce")
    }
    verb = {name: one.default for name, one in inspect.signature(curate_job.run).parameters.items()}
    assert {name: verb[name] for name in function} == function
    assert set(verb) - set(function) == {"job", "log_json", "as_json", "quiet", "push_to_hub"}


def test_check_and_run_refuse_an_output_folder_of_something_else_alike(ready_kit, capsys):
    ready_kit.out.mkdir()
    (ready_kit.out / "thesis.tex").write_text("years of work")
    for verb in ("check", "run"):
        assert main(["curate", verb, str(ready_kit.file)]) == 2
        assert "must be new, empty or of this job, it holds thesis.tex" in capsys.readouterr().err


def test_run_twice_then_look(ready_kit, capsys, rows):
    assert main(["curate", "run", str(ready_kit.file)]) == 0
    assert "6 rows in the snapshot: 6 added, 0 removed" in capsys.readouterr().err
    assert main(["curate", "run", str(ready_kit.file), "--json"]) == 3
    printed = json.loads(capsys.readouterr().out)
    assert (printed["outcome"], printed["exit_code"], printed["version"]) == ("nothing-new", 3, 1)
    ready_kit.add("b", rows(4, 2))
    assert main(["curate", "check", str(ready_kit.file)]) == 0
    assert "1 new file, 1 known" in capsys.readouterr().out
    assert main(["curate", "run", str(ready_kit.file), "--dry-run"]) == 0
    assert "would be: done" in capsys.readouterr().err
    assert main(["curate", "run", str(ready_kit.file), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["curate", "history", "--job", str(ready_kit.out), "--json"]) == 0
    assert [run["outcome"] for run in json.loads(capsys.readouterr().out)] == ["done", "nothing-new", "done"]
    assert main(["curate", "show", "latest", "--job", str(ready_kit.file)]) == 0
    assert "run 3 at" in capsys.readouterr().out
    assert main(["curate", "diff", "v1", "3", "--job", str(ready_kit.file)]) == 0
    assert "v000001 -> v000002: 6 rows -> 10; 4 added, 0 removed, 6 kept" in capsys.readouterr().out


def test_a_log_whose_reader_has_left_stops_no_run_and_changes_no_exit_code(ready_kit, tmp_path):
    """It ended with exit code 0, and had published nothing."""
    command = [sys.executable, "-m", "thresher", "curate", "run", str(ready_kit.file)]
    environment = {**os.environ, "THRESHER_CACHE": str(tmp_path / "cache")}
    ready_kit.run()
    ready_kit.add("b", [{"prompt": "b", "completion": "c"}] * 2)
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stderr.close()
    printed = json.loads(process.stdout.read())
    process.stdout.close()
    assert (process.wait(), printed["exit_code"], printed["version"]) == (0, 0, 2)
    assert len(ready_kit.table()) == 7
    process = subprocess.Popen([*command, "--log-json"], stderr=subprocess.PIPE, env=environment)
    process.stderr.close()
    assert process.wait() == 3


def test_every_line_of_the_log_is_an_object_with_the_same_names(ready_kit, capsys):
    main(["curate", "run", str(ready_kit.file), "--log-json"])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all({"time", "level", "event", "message"} <= set(line) for line in lines)
    assert lines[-1]["event"] == "end"
    assert lines[-1]["exit_code"] == 0


def test_an_error_is_one_object_of_the_log_and_exit_2(ready_kit, capsys):
    ready_kit.file.write_text("nonsense = 1\n")
    assert main(["curate", "run", str(ready_kit.file), "--log-json"]) == 2
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (last["event"], last["exit_code"]) == ("error", 2)
    assert "unknown key 'nonsense'" in last["message"]


@pytest.mark.parametrize(
    ("raised", "code"), [(OSError(errno.ENOSPC, "No space left on device"), 2), (RuntimeError("odd"), 1)]
)
def test_whatever_ends_a_run_is_an_object_of_the_log(ready_kit, capsys, monkeypatch, raised, code):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr("thresher.jobs.run._run_locked", fail)
    assert main(["curate", "run", str(ready_kit.file), "--log-json"]) == code
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (lines[-1]["level"], lines[-1]["exit_code"]) == ("error", code)


@pytest.mark.parametrize(
    "arguments", [["show", "77"], ["show", "v9"], ["diff", "v1", "nonsense"], ["history", "--job", "/nowhere.toml"]]
)
def test_what_is_not_there_is_an_error(ready_kit, capsys, arguments):
    main(["curate", "run", str(ready_kit.file), "--quiet"])
    where = [] if "--job" in arguments else ["--job", str(ready_kit.file)]
    assert main(["curate", *arguments, *where]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_page_of_a_snapshot_shows_what_entered_and_why_rows_left(ready_kit, rows, capsys):
    pytest.importorskip("jinja2")
    main(["curate", "run", str(ready_kit.file), "--quiet"])
    ready_kit.add("b", [*rows(3, 2), {"prompt": "<script>alert(1)</script>", "completion": "x"}])
    main(["curate", "run", str(ready_kit.file), "--quiet"])
    assert main(["report", str(ready_kit.out / "latest")]) == 0, capsys.readouterr().err
    page = (ready_kit.out / "latest" / "report.html").read_text()
    assert "The pool has 10 rows: 4 are new, and 0 were removed." in page
    assert "Drift since the previous run" in page
    assert "<script>alert" not in page
    assert main(["curate", "run", str(ready_kit.file), "--quiet"]) == 3  # the page disturbs nothing
    latest = ready_kit.out / "latest"
    (latest / "changes.json").rename(latest / "churn.json")  # its first name
    assert main(["report", str(ready_kit.out / "latest")]) == 0, capsys.readouterr().err
    assert (ready_kit.out / "latest" / "report.html").read_text() == page


def test_all_verbs_are_in_the_group():
    assert {command.callback.__name__ for command in curate_job.curate_app.registered_commands} >= {
        "run",
        "check",
        "history",
        "show",
        "diff",
    }
