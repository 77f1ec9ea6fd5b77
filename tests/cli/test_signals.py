"""Ctrl-C and SIGTERM at any moment are one sentence."""

import signal
import subprocess
import sys

import pytest

# Sends itself a signal when a module is about to be imported.
INTERRUPTED = """
import os, runpy, sys
number, module = int(sys.argv[1]), sys.argv[2]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Finder())
sys.argv = ["thresher", *sys.argv[3:]]
runpy.run_module("thresher", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("number", "word", "module"),
    [
        (signal.SIGINT, "interrupted", "typer"),
        (signal.SIGINT, "interrupted", "polars"),
        (signal.SIGTERM, "terminated", "thresher.selection.run"),
    ],
)
def test_a_signal_during_an_import_is_one_sentence(number, word, module):
    command = [sys.executable, "-c", INTERRUPTED, str(int(number)), module, "select", "rows.jsonl", "--budget", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == f"{word}; run the same command again to resume\n"


def test_a_signal_during_an_import_is_an_object_of_the_log():
    import json

    command = [sys.executable, "-c", INTERRUPTED, str(int(signal.SIGTERM)), "thresher.cli.main"]
    done = subprocess.run([*command, "curate", "run", "job.toml", "--log-json"], capture_output=True, check=False)
    assert json.loads(done.stderr)["exit_code"] == done.returncode == 143


def test_who_ignores_interrupts_goes_on():
    """As nohup and a shell's `&` start a command."""
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{INTERRUPTED}"
    command = [sys.executable, "-c", code, str(int(signal.SIGINT)), "thresher.cli.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("thresher ")) == (0, True)
