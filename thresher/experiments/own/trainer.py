"""A trainer of the user's own: a command that learns some rows, and says how good it became."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.manifest import digest
from thresher.dataset import Dataset
from thresher.errors import InputError, NotFoundError, did_you_mean
from thresher.evaluation.metric import LINEARIZED, METRICS, Metric, names_loss
from thresher.evaluation.own_metric import COMMAND, LOWER
from thresher.evaluation.task_name import PREFIX as LM_EVAL
from thresher.numeric.units import parse_seconds
from thresher.trainer.context import content_hash

TRAIN, EVAL, OUT, SEED = "{train}", "{eval}", "{out}", "{seed}"
SCORE, ONE_NUMBER = "score", "is_of_all_rows"
FORMAT = 1  # raise it when results of earlier versions of the code must not be used again
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl


@dataclass(frozen=True, kw_only=True)
class OwnTrainer:
    """A command that learns rows and measures itself.

    Attributes:
        words: of the command, with places for `{train}`, `{eval}`, and where it has them `{out}`
            and `{seed}`.
        files: hash of each word that names a file, so that a changed program is another trainer.
        seconds: that one run may take.
    """

    words: tuple[str, ...]
    files: tuple[str, ...]
    seconds: float

    @staticmethod
    def parse(text: str, max_time: float | str) -> OwnTrainer:
        """Return the trainer that a text names.

        Args:
            text: "command:PROGRAM ... {train} {eval}".
            max_time: of one run.

        Raises:
            InputError: it is not a command, or has no place for the files.
        """
        words = tuple(shlex.split(text.removeprefix(COMMAND)))
        if not text.startswith(COMMAND) or not all(any(part in word for word in words) for part in (TRAIN, EVAL)):
            raise InputError(
                f"trainer: must be '{COMMAND}PROGRAM ...' with {TRAIN} and {EVAL} where the files are named, got "
                f"{text!r}; for example '{COMMAND}python train.py {TRAIN} {EVAL} {OUT}'"
            )
        files = tuple(_hash_file(Path(word)) for word in words if Path(word).is_file())
        return OwnTrainer(words=words, files=files, seconds=parse_seconds(max_time))

    def to_json(self) -> dict[str, Any]:
        """Return what determines its results, as JSON values."""
        return {"command": shlex.join(self.words), "files": list(self.files)}


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_trainer_metric(metric: Any, kind: str) -> Metric:
    """Return the metric that a trainer reports: the default of such rows, or any name.

    Args:
        metric: name, "lower:NAME" where lower is better, or None.
        kind: of the rows.

    Raises:
        InputError: it is a function or a command, which a trainer's report does not need.
    """
    if metric is not None and not isinstance(metric, str):
        raise InputError("trainer: the trainer measures, so metric must be a name, got a function; leave it out")
    name = metric or next(iter(METRICS[kind]))
    if name.removeprefix(LOWER).startswith((COMMAND, LM_EVAL)):
        raise InputError(f"trainer: the trainer measures, so metric must be a name, got {name!r}; give a name")
    is_lower = name.startswith(LOWER) or names_loss(name)
    return Metric(name=name.removeprefix(LOWER), is_higher_better=not is_lower, column=SCORE)


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """One run of a trainer.

    Attributes:
        trainer: the command.
        rows: to learn.
        test: rows to measure on.
        seed: number of the run.
        metric: that is reported.
    """

    trainer: OwnTrainer
    rows: Dataset
    test: Dataset
    seed: int
    metric: Metric

    def compute_key(self) -> str:
        """Return the content address: which rows, learned and measured by which command."""
        return digest(
            {
                "trainer": self.trainer.to_json(),
                "rows": content_hash(self.rows),
                "test": content_hash(self.test),
                "seed": self.seed,
                "metric": self.metric.name,
                "format": FORMAT,
            }
        )

    def run(self, work: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
        """Run the command, and return one row per test row, and facts of the training.

        Args:
            work: existing folder for the files of both sides.

        Raises:
            InputError: the command fails, takes too long, or does not report the metric.
        """
        out = work / "out.json"
        files: dict[str, Any] = {
            TRAIN: self.rows.write(np.arange(len(self.rows)), work, "train"),
            EVAL: self.test.write(np.arange(len(self.test)), work, "eval"),
            OUT: out,
            SEED: self.seed,
        }
        words = [_fill(word, files) for word in self.trainer.words]
        started, told = time.monotonic(), shlex.join(self.trainer.words)
        printed = _execute(words, told, self.trainer.seconds, work)
        report = out.read_text(errors="replace") if out.is_file() else printed
        facts = {
            "steps": None,
            "rows_learned": len(self.rows),
            "tokens_learned": None,
            "train_seconds": round(time.monotonic() - started, 3),
        }
        return _read_report(report, self.metric, self.test, told), facts


def _fill(word: str, values: Mapping[str, Any]) -> str:
    for place, value in values.items():
        word = word.replace(place, str(value))
    return word


def _execute(words: Sequence[str], told: str, seconds: float, work: Path) -> str:
    """Run a command to its end, and return the last line that it printed."""
    printed, complained = work / "stdout.txt", work / "stderr.txt"
    with printed.open("wb") as out, complained.open("wb") as err:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(f"trainer: the command '{told}' cannot be run ({reason}); correct it") from None
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise InputError(
                f"trainer: the command '{told}' must end within {seconds:g} s, and did not; raise --trainer-time"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it started goes, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        last = _read_last_line(complained) or "nothing said"
        raise InputError(f"trainer: the command '{told}' must exit with 0, got {code} ({last[:200]}); correct it")
    return _read_last_line(printed)


def _die_with_parent() -> None:
    """Have this process killed when the one that started it is gone, as after kill -9."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _read_last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _read_report(text: str, metric: Metric, test: Dataset, told: str) -> pl.DataFrame:
    """Return the table of outcomes that a trainer's report stands for."""
    n, name = len(test), metric.name
    wanted = f'{{"{name}": NUMBER}}, a list with a number for each of the {n:,} test rows, or "predictions"'
    try:
        report = json.loads(text)
    except ValueError:
        found = text[:60] or "nothing"
        raise InputError(f"trainer: the command '{told}' must report {wanted} as JSON, got {found!r}") from None
    if not isinstance(report, dict):
        report = {name: report}
    table = test.frame.select("row_id")
    if isinstance(report.get("predictions"), list) and test.kind == "classification":
        return _score_predictions(table, report["predictions"], metric, test, told)
    if name not in report:
        named = ", ".join(map(str, report)) or "nothing"
        hint = did_you_mean(name, [str(key) for key in report])
        raise NotFoundError(f"trainer: the command '{told}' must report {wanted}, found {named}{hint}")
    values = report[name]
    is_one = not isinstance(values, list)
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full(0, np.nan)
    if numbers.shape != (() if is_one else (n,)) or not np.isfinite(numbers).all():
        raise InputError(f"trainer: the command '{told}' must report {wanted}, got {str(values)[:60]}")
    columns = {SCORE: pl.Series(np.broadcast_to(numbers, n)), ONE_NUMBER: pl.Series([is_one] * n)}
    return table.with_columns(**columns)


def _score_predictions(
    table: pl.DataFrame, predictions: Sequence[Any], metric: Metric, test: Dataset, told: str
) -> pl.DataFrame:
    """Return the outcomes of predicted labels, by a metric that labels alone give."""
    labels = test.frame["response"].to_list()
    if len(predictions) != len(labels):
        raise InputError(
            f"trainer: the command '{told}' must report a prediction for each of the {len(labels):,} test rows, got "
            f"{len(predictions):,}"
        )
    if metric.name != "accuracy" and metric.name not in LINEARIZED:
        known = ", ".join(["accuracy", *LINEARIZED])
        raise InputError(f"trainer: predictions give {known}, not {metric.name}; report its value, or give --metric")
    predicted = [str(each) for each in predictions]
    is_right = [label == each for label, each in zip(labels, predicted, strict=True)]
    score = (
        np.asarray(is_right, np.float64) if metric.name == "accuracy" else LINEARIZED[metric.name](labels, predicted)
    )
    return table.with_columns(
        label=pl.Series(labels),
        prediction=pl.Series(predicted),
        correct=pl.Series(is_right),
        **{SCORE: pl.Series(score), ONE_NUMBER: pl.Series([False] * len(labels))},
    )
