"""Metrics of the user's own: a function, an entry point, or a command that prints JSON."""

from __future__ import annotations

import hashlib
import inspect
import json
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.evaluation.estimate import Estimate, mean
from thresher.evaluation.metric import Metric
from thresher.numeric.arrays import Float64
from thresher.plugins import available

GROUP = "thresher.metrics"
COMMAND, LOWER = "command:", "lower:"
SECONDS = 600  # that a command may take

Function = Callable[[pl.DataFrame], Any]


@dataclass(frozen=True, kw_only=True)
class OwnMetric(Metric):
    """A metric that the user computes from the table of outcomes.

    Attributes:
        function: table of outcomes -> one number per test row.
    """

    function: Function = field(compare=False)

    def per_row(self, outcomes: pl.DataFrame) -> Float64:
        """Return the value of each test row, (n,).

        Raises:
            InputError: the function does not give one finite number per row.
        """
        values = self.function(outcomes)
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.full(0, np.nan)
        if array.shape != (len(outcomes),) or not np.isfinite(array).all():
            got = f"shape {array.shape}" if array.shape != (len(outcomes),) else "NaN or infinity among them"
            raise InputError(
                f"metric {self.name}: must give one finite number for each of the {len(outcomes):,} test rows, got "
                f"{got}; return a list as long as the table of outcomes"
            )
        return array

    def per_row_or_nan(self, outcomes: pl.DataFrame) -> Float64:
        """Return the value of each test row, (n,): all have one."""
        return self.per_row(outcomes)

    def weights(self, outcomes: pl.DataFrame) -> None:
        """Return None: all rows count alike."""
        del outcomes

    def measure(self, outcomes: pl.DataFrame) -> Estimate:
        """Return the mean over all test rows, with its standard error over rows."""
        return mean(self.per_row(outcomes))

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the function behind: workers train, and the process that asked measures."""
        return _build_plain, (self.name, self.is_higher_better)


def _build_plain(name: str, is_higher_better: bool) -> Metric:
    return Metric(name=name, is_higher_better=is_higher_better, column=None)


def find_own_metric(metric: Any) -> OwnMetric | None:
    """Return the user's own metric, or None for the name of another.

    Args:
        metric: a function from the table of outcomes (`row_id`, `label`, `prediction`, ...; of
            language models `response` and `answer`) to one number per row; "command:PROGRAM ...",
            which reads that table as JSON lines and prints a JSON list; or the name of an entry
            point of the group "thresher.metrics". A text may begin with "lower:", where lower is
            better; a function says so by an attribute `is_higher_better`.

    Raises:
        InputError: a command is empty.
    """
    if callable(metric):
        label = metric.__name__ if inspect.isroutine(metric) else type(metric).__name__
        return _build(metric, label, _read_source(metric), _is_higher(metric))
    if not isinstance(metric, str):
        return None
    is_lower, name = metric.startswith(LOWER), metric.removeprefix(LOWER)
    if name.startswith(COMMAND):
        words = shlex.split(name.removeprefix(COMMAND))
        if not words:
            raise InputError(f"metric: {COMMAND} must be followed by a program, got nothing")
        files = [Path(word).read_bytes() for word in words if Path(word).is_file()]
        label = Path(next((word for word in words[1:] if Path(word).is_file()), words[0])).stem
        return _build(
            lambda outcomes: _run(tuple(words), outcomes.write_ndjson()), label, repr((words, files)), not is_lower
        )
    points = available(GROUP)
    if name not in points:
        return None
    function = points[name].load()
    return _build(function, name, _read_source(function), _is_higher(function) and not is_lower)


def _is_higher(function: Any) -> bool:
    return bool(vars(function).get("is_higher_better", True)) if hasattr(function, "__dict__") else True


def _build(function: Function, label: str, source: str, is_higher: bool) -> OwnMetric:
    # the same name for another function must not read an earlier result back
    name = f"{label}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    return OwnMetric(name=name, is_higher_better=is_higher, column=name, function=function)


def _read_source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return repr(function)


@lru_cache(maxsize=256)
def _run(words: tuple[str, ...], table: str) -> Any:
    """Return what a command prints of a table."""
    told = shlex.join(words)
    try:
        done = subprocess.run(words, input=table, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"metric: the command '{told}' cannot be run ({error}); correct it") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise InputError(f"metric: the command '{told}' must exit with 0, got {done.returncode} ({last}); correct it")
    try:
        values = json.loads(done.stdout)
    except ValueError:
        raise InputError(
            f"metric: the command '{told}' must print a JSON list with a number per row, got {done.stdout[:40]!r}"
        ) from None
    return values["values"] if isinstance(values, dict) and "values" in values else values
