"""The wheel works outside the repository with its own dependencies alone: no torch, no extra."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUN = "import sys; from thresher.__main__ import run; run()"


def _find_closure(names):
    """Return the distributions that names need, without extras."""
    closure, queue = {}, list(names)
    while queue:
        name = re.split(r"[\s;<>=!~\[(]", queue.pop())[0].lower().replace("_", "-")
        if name in closure:
            continue
        try:
            closure[name] = distribution(name)
        except PackageNotFoundError:  # of another system or version of Python
            continue
        queue += [one for one in closure[name].requires or [] if "extra ==" not in one]
    return closure


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with the wheel's content, links to its dependencies, and some rows."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    _reuse_compiled_loops(folder / "site")
    (metadata,) = (folder / "site").glob("thresher-*.dist-info/METADATA")
    needs = re.findall(r"^Requires-Dist: ((?:(?!extra ==).)*)$", metadata.read_text(), re.MULTILINE)
    for one in _find_closure(needs).values():
        for top in {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = folder / "site" / top
            if not link.exists():
                link.symlink_to(Path(str(one.locate_file(top))))
    rows = (ROOT / "data/products/train.jsonl").read_text().splitlines(keepends=True)
    (folder / "pool.jsonl").write_text("".join(rows[:120]))
    done = _run(folder, *["select", "pool.jsonl", "--method", "random", "--budget", "20", "--out", "chosen"])
    assert done.returncode == 0, done.stderr
    return folder


def _reuse_compiled_loops(site):
    """Give the wheel the loops compiled from our sources, which are those of the wheel."""
    for path in (ROOT / "thresher").rglob("*"):
        there = site / path.relative_to(ROOT)
        if path.suffix in (".nbi", ".nbc"):
            there.parent.mkdir(exist_ok=True)
            shutil.copy(path, there)
        elif path.suffix == ".py":
            assert there.read_bytes() == path.read_bytes()
            os.utime(there, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))


def _run(place, *words):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    environment |= {"PYTHONPATH": str(place / "site"), "THRESHER_CACHE": str(place / "cache")}
    return subprocess.run(
        [sys.executable, "-S", "-c", RUN, *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        "select pool.jsonl --method k-center --budget 20 --out far",
        "score pool.jsonl --features length --out scores.parquet",
        "curate clean pool.jsonl --out clean",
        "export chosen --to trl --out for-trl",
        "doctor",
    ],
)
def test_it_works_without_extras(place, words):
    done = _run(place, *words.split())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "train pool.jsonl --eval 10% --model tiny --out adapter",
        "curve pool.jsonl --eval 10% --model tiny --out curve",
        "compare pool.jsonl --eval 10% --model tiny --methods length --out comparison",
        "report chosen",
    ],
)
def test_what_needs_an_extra_says_so_in_one_sentence(place, words):
    done = _run(place, *words.split())
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "pip install 'thresher[" in done.stderr.splitlines()[-1]
