"""The commands that are disturbed: small inputs, the state they start from, and their result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.faults.fork_server import ForkServer

WORDS = ["red", "blue", "small", "large", "shirt", "phone", "case", "lamp", "oak", "steel", "cotton", "running"]
JOB = """
[[sources]]
files = ["src/*.jsonl"]
[[steps]]
rule = "near-duplicates"
[select]
total = 40
[features]
encoder = "static"
[output]
folder = "out"
"""
TIMES = {"cost.csv"}  # files that hold nothing but seconds


@dataclass(frozen=True)
class Command:
    """One command that is disturbed.

    Attributes:
        name: of the command.
        arguments: by the folder in which it runs.
        prepare: makes the folder's state before it.
        result: where its result is, by the folder.
        old: the result that was there before, which it replaces; None where there was none.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    prepare: Callable[[ForkServer, Path], None]
    result: Callable[[Path], Path]
    replaces: bool = False

    def read_result(self, folder: Path) -> dict[str, bytes] | None:
        """Return the files of the result, or None where there is none."""
        path = self.result(folder)
        return read_files(path.resolve()) if path.exists() else None


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file, without what may differ between two runs of the same work."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in TIMES:
            data = path.read_bytes()
            files[str(path.relative_to(folder))] = _remove_run(data) if path.suffix == ".json" else data
    return files


def _remove_run(data: bytes) -> bytes:
    """Return a JSON object without its section `run`, and what is none as it is."""
    try:
        content = json.loads(data)
    except ValueError:  # half a file, in a work folder
        return data
    if not isinstance(content, dict):
        return data
    return json.dumps({key: value for key, value in content.items() if key != "run"}).encode()


def write_rows(path: Path, n: int, seed: int, *, is_labeled: bool = False) -> Path:
    """Write n rows of random words; the same seed gives the same rows."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 8)) + f" {seed}-{number}" for number in range(n)]
    answers = rng.choice(["tool", "cloth", "other"], n) if is_labeled else rng.choice(WORDS, n)
    names = ("text", "label") if is_labeled else ("prompt", "completion")
    rows = [dict(zip(names, (text, str(answer)), strict=True)) for text, answer in zip(texts, answers, strict=True)]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build_commands(model: Path | None) -> dict[str, Command]:
    """Return the commands by name; `model` is an encoder, which train and curve need."""
    return {command.name: command for command in (*_build_selections(), _build_train(model), _build_curve(model), JOBS)}


def _build_selections() -> tuple[Command, Command]:
    def select(folder: Path, budget: str = "20%") -> list[str]:
        method = ["--method", "facility-location", "--encoder", "static", "--budget", budget]
        return ["select", str(folder / "rows.jsonl"), *method, "--out", str(folder / "out"), "--quiet"]

    def prepare(_: ForkServer, folder: Path) -> None:
        write_rows(folder / "rows.jsonl", 60, 0)

    def prepare_old(server: ForkServer, folder: Path) -> None:
        prepare(server, folder)
        _succeed(server, select(folder, budget="10%"), folder)

    return (
        Command("select", select, prepare, _find_out),
        Command("select --force", lambda folder: [*select(folder), "--force"], prepare_old, _find_out, replaces=True),
    )


def _build_train(model: Path | None) -> Command:
    def train(folder: Path) -> list[str]:
        size = ["--max-steps", "2", "--batch-size", "8", "--save-every-s", "0", "--eval", "20%"]
        where = ["--model", str(model), "--out", str(folder / "out")]
        return ["train", str(folder / "rows.jsonl"), *size, *where, "--quiet"]

    def prepare(_: ForkServer, folder: Path) -> None:
        write_rows(folder / "rows.jsonl", 60, 0, is_labeled=True)

    return Command("train", train, prepare, _find_out)


def _build_curve(model: Path | None) -> Command:
    def curve(folder: Path) -> list[str]:
        grid = ["--methods", "random", "--sizes", "10,20,30", "--seeds", "2", "--grid", "--eval", "20%"]
        where = ["--workers", "1", "--model", str(model), "--out", str(folder / "out")]
        return ["curve", str(folder / "rows.jsonl"), *grid, "--train", "max_steps=1", *where, "--no-page", "--quiet"]

    def prepare(server: ForkServer, folder: Path) -> None:
        """All cells but one are done, which leaves one training and the result."""
        write_rows(folder / "rows.jsonl", 60, 0, is_labeled=True)
        _succeed(server, curve(folder), folder)
        shutil.rmtree(folder / "out")
        cells = [path for path in (folder / "cache" / "cells" / "v1").iterdir() if (path / "manifest.json").is_file()]
        shutil.rmtree(max(cells))

    return Command("curve", curve, prepare, _find_out)


def _run_job(folder: Path) -> list[str]:
    return ["curate", "run", str(folder / "job.toml"), "--quiet"]


def _prepare_job(server: ForkServer, folder: Path) -> None:
    """There is a snapshot, and new rows."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "job.toml").write_text(JOB)
    write_rows(folder / "src" / "a.jsonl", 30, 1)
    _succeed(server, _run_job(folder), folder)
    write_rows(folder / "src" / "b.jsonl", 30, 2)


JOBS = Command("curate run", _run_job, _prepare_job, lambda folder: folder / "out" / "latest", replaces=True)


def _find_out(folder: Path) -> Path:
    return folder / "out"


def _succeed(server: ForkServer, arguments: list[str], folder: Path) -> None:
    ending = server.run(arguments, folder)
    if ending.status:
        raise AssertionError(f"{arguments} ended with {ending.status}: {ending.output}")
