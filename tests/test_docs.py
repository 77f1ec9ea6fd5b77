"""Every Python and shell example in the README and the documentation runs as it is written.

The data set that they name is cut to its first rows and training to a few steps, so that they take
seconds.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
N_ROWS = {"train.jsonl": 600, "test.jsonl": 60}
STEPS = re.compile(r"(?<=max[-_]steps[ =])\d+")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def copy_rows(folder, n_rows):
    """Copy the first rows of the embedded data set."""
    folder.mkdir(parents=True)
    for name, n in n_rows.items():
        lines = (ROOT / "data/products" / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:n]))


def blocks(page):
    return BLOCK.findall(STEPS.sub("3", page.read_text()))


@pytest.mark.timeout(900)  # many commands, one after the other
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_examples_run(page, forks, tmp_path):
    copy_rows(tmp_path / "data/products", N_ROWS)
    environment = {**os.environ, "PATH": f"{forks.program.parent}:{os.environ['PATH']}"}
    python = []
    for language, code in blocks(page):
        if language == "python":
            python.append(code)
            continue
        done = subprocess.run(
            ["bash", "-euc", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stderr}"
    if python:
        done = forks.run(["-c", "\n".join(python)], folder=tmp_path)
        assert done.returncode == 0, done.stderr
