"""Streams that are closed, full or without a reader: the work is done, or one sentence says why."""

import os
import subprocess
import sys

import pytest

FULL = "/dev/full"
pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason=f"needs {FULL}")


@pytest.fixture
def select(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(9)))
    command = [sys.executable, "-m", "thresher", "select", "rows.jsonl", "--method", "random", "--budget", "3"]

    def run(*more, shell):
        words = ["bash", "-o", "pipefail", "-c", f'"$@" {shell}', "bash", *command, "--out", "out", *more]
        return subprocess.run(words, cwd=tmp_path, capture_output=True)

    return run


@pytest.mark.parametrize(
    "shell", [f"2>{FULL}", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&1 >/dev/null | true", f"--quiet >{FULL}"]
)
def test_messages_that_nobody_gets_do_not_end_the_work(select, tmp_path, shell):
    assert select(shell=shell).returncode == 0
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert len((tmp_path / "out" / "subset.jsonl").read_bytes().splitlines()) == 3


def test_a_result_that_cannot_be_printed_is_one_sentence(select):
    done = select("--json", shell=f">{FULL}")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == (
        "thresher: standard output: could not be written or read: no space left on device; fix that and run the same "
        "command again"
    )


def test_a_folder_that_is_gone_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    lost = tmp_path / "lost"
    lost.mkdir()
    command = [sys.executable, "-P", "-m", "thresher", "select", "../rows.jsonl", "--method", "random", "--budget", "3"]
    script = 'cd lost && rmdir ../lost && exec "$@"'
    words = ["bash", "-c", script, "bash", *command, "--out", "out"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("thresher: the current folder: ")


@pytest.mark.parametrize("where", ["out", "folder"])
def test_a_path_that_is_not_utf_8_is_one_sentence(tmp_path, where):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    folder = os.fsencode(tmp_path) + (b"" if where == "out" else b"/\xff")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        pytest.skip("the file system takes no such name")
    rows, out = os.fsencode(tmp_path) + b"/rows.jsonl", b"\xff" if where == "out" else b"o"
    command = [sys.executable, "-m", "thresher", "select", rows, "--method", "random", "--budget", "1", "--out", out]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"the whole path must be UTF-8" in done.stderr


def test_a_folder_that_takes_no_file_is_not_taken_for_another_run():
    command = [sys.executable, "-m", "thresher", "select", "-", "--method", "random", "--budget", "1"]
    rows = b'{"text": "a"}\n{"text": "b"}\n'
    done = subprocess.run([*command, "--out", "/proc/nothing"], input=rows, capture_output=True)
    assert done.returncode == 2
    assert b"its parent folder cannot take new files" in done.stderr
