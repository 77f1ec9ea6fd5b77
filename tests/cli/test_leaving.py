"""How a command ends: at once, with everything said, and with its own exit code."""

import os
import subprocess
import sys

import pytest

# what a command may have left for the exit: a temporary folder, a child, a half-written line; and
# what Python would still have to take down
SCRIPT = """
import atexit, os, signal, sys, tempfile, time
from thresher.cli import main
class Slow:
    def __del__(self):
        time.sleep(60)
sys.slow = Slow()
folder = tempfile.TemporaryDirectory()
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
print(folder.name)
main.main = lambda words: {code}
main.run()
"""


def run(code):
    command = [sys.executable, "-c", SCRIPT.replace("{code}", code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("code", ["0", "3", "75"])
def test_a_command_that_is_done_clears_up_and_keeps_its_code_whatever_signal_comes(code):
    done = run(code)
    assert (done.returncode, done.stderr) == (int(code), "")
    assert not os.path.exists(done.stdout.strip())


def test_one_that_was_ended_leaves_with_the_code_of_the_signal():
    assert run("sys.exit(143)").returncode == 143


@pytest.mark.parametrize("code", ["0", "", "'done'"])
def test_code_that_ends_the_process_is_no_success(code):
    """As a plug-in that calls sys.exit: exit code 0 would announce a result that is not there."""
    script = f"import sys; from thresher.cli import main; main.app = lambda _: sys.exit({code}); main.run()"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("thresher: internal error: a plug-in or library exited the process (SystemExit: ")
    assert done.stderr.count("\n") == 1
