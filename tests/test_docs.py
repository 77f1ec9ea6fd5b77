"""Every Python and bash example in the README and the documentation runs as it is written.

The data set that they name is cut to its first rows and training to a few steps, so that they take
seconds. What is written as sh takes longer, or needs files of the reader: of that, every command
must be one that the command line takes.
"""

import os
import re
import shlex
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *TUTORIALS]
SLOW = {"python": 3}  # blocks that run without `-m slow`, where all of them take a minute
N_ROWS = {"train.jsonl": 600, "test.jsonl": 60}
STEPS = re.compile(r"(?<=max[-_]steps[ =])\d+")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


# what ends the words of a command that there are to check
ENDS = {"...", "|", ">", "2>&1", "&&", "-h", "--help", "--version", "-V"}
SHELL = re.compile(r"^```(?:sh|bash|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
JOB = re.compile(r"^```toml\n(name = .*?)^```", re.MULTILINE | re.DOTALL)


def copy_rows(folder, n_rows):
    """Copy the first rows of the embedded data set."""
    folder.mkdir(parents=True)
    for name, n in n_rows.items():
        lines = (ROOT / "data/products" / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:n]))


def blocks(page):
    text = STEPS.sub("3", page.read_text())
    if page in TUTORIALS:  # with the toy model in place of one of hundreds of megabytes
        text = text.replace("thresher train ", "thresher train --model tiny --max-steps 3 --eval-generations 2 ")
    return BLOCK.findall(text)


def prepare_folder(page, folder):
    """Put what a page names into the folder that its commands run in."""
    copy_rows(folder / "data/products", N_ROWS)
    shutil.copytree(ROOT / "data/instructions", folder / "data/instructions")
    if page.stem == "nightly":
        (folder / "job.toml").write_text(JOB.search(page.read_text())[1])
        (folder / "incoming").mkdir()
        shutil.copy(folder / "data/products/train.jsonl", folder / "incoming/monday.jsonl")
        shutil.copy(folder / "data/products/test.jsonl", folder / "test.jsonl")


@pytest.mark.timeout(900)  # many commands, one after the other
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_examples_run(page, forks, tmp_path):
    run_blocks(page, blocks(page)[: SLOW.get(page.stem)], forks, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem in SLOW], ids=lambda page: page.stem)
def test_all_examples_of_a_long_page_run(page, forks, tmp_path):
    run_blocks(page, blocks(page), forks, tmp_path)


def run_blocks(page, chosen, forks, tmp_path):
    """Run blocks of a page in a folder with what it names: Python together, shell one by one."""
    prepare_folder(page, tmp_path)
    environment = {**os.environ, "PATH": f"{forks.program.parent}:{os.environ['PATH']}"}
    python = []
    for language, code in chosen:
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


def list_commands(page):
    """Return the words of each `thresher` command in a page's blocks."""
    for code in SHELL.findall(page.read_text()):
        for line in code.replace("\\\n", " ").splitlines():
            command = re.sub(r"^\s*\$?\s*(?:[A-Z_]+=\S+ )*", "", line)
            if command.startswith("thresher "):
                yield shlex.split(command, comments=True)[1:]


@pytest.mark.parametrize("page", [page for page in PAGES if any(list_commands(page))], ids=lambda page: page.stem)
def test_every_command_in_a_page_is_one_that_there_is(page):
    from typer.main import get_command

    from thresher.cli.commands import build_app

    top = get_command(build_app())
    for words in list_commands(page):
        words = list(takewhile(lambda word: word not in ENDS, words))
        command, rest = top, list(words)
        while hasattr(command, "commands") and rest:
            assert rest[0] in command.commands, words
            command, rest = command.commands[rest[0]], rest[1:]
        names = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= names | {"--debug"}, words


def test_each_item_of_a_list_has_a_line_of_its_own():
    """A tool that wraps prose can join the items of a list into one paragraph."""
    joined = re.compile(r"[.;]\s+[-*]\s(?=\S)|[)%]\s+[-*]\s(?=\*\*|[A-Z`])|[.;]\s+[2-9]\. (?=[A-Za-z`*])")

    found = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"^\s*([-*]|\d+\.) ", "", text, flags=re.MULTILINE)  # items that stand alone
        found += [f"{page.name}: {match[0]!r}" for match in joined.finditer(text)]
    assert found == []
