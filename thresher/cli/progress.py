"""Progress on stderr: a bar at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from thresher.artifacts.remote.places import name_addresses
from thresher.numeric.units import format_time_left
from thresher.printable import escape_line

if TYPE_CHECKING:
    from thresher.features import Progress
    from thresher.trainer.events import TrainEvent

SECONDS_BETWEEN_LINES = 10.0
SECONDS_TO_FIRST_LINE = 2.0  # who waits longer wonders whether anything happens


@contextmanager
def progress_display(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Give a callback that shows progress, or None when nothing is to be shown."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _clean(_Lines().show)


@contextmanager
def training_display(*, quiet: bool) -> Iterator[Callable[[TrainEvent], None] | None]:
    """Give a callback that shows the steps of training, or None when nothing is to be shown."""
    with progress_display(quiet=quiet) as show:
        if show is None:
            yield None
            return

        def show_event(event: TrainEvent) -> None:
            from thresher.features import Progress

            if event.kind in ("start", "step") or event.message:
                show(Progress(stage=event.stage, done=event.step, total=event.n_steps, note=event.message or None))

        yield show_event


def _clean(show: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Return a callback whose names and notes are lines without control characters.

    A note that was shown is not shown again: features that share an encoder say the same of it.
    """
    shown: set[str] = set()

    def show_clean(progress: Progress) -> None:
        note = None if progress.note is None or progress.note in shown else escape_line(name_addresses(progress.note))
        shown.update([progress.note] if progress.note else [])
        show(replace(progress, stage=escape_line(progress.stage), note=note))

    return show_clean


def _bars() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total, rate="")
            task = tasks[progress.stage]
            speed = bars.tasks[task].speed
            bars.update(task, completed=progress.done, total=progress.total, rate=_rate(speed) if speed else "")
            if progress.note:
                bars.console.print(progress.note, markup=False, emoji=False)

        yield _clean(show)


class _Lines:
    """A line every few seconds, for logs; the first one soon."""

    def __init__(self) -> None:
        self._started: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}
        self._last = time.monotonic() - SECONDS_BETWEEN_LINES + SECONDS_TO_FIRST_LINE

    def show(self, progress: Progress) -> None:
        """Print the line when it is time."""
        now = time.monotonic()
        began, first = self._started.setdefault(progress.stage, (now, progress.done))
        if progress.done < self._done.get(progress.stage, 0):  # it begins anew, as for other rows
            began, first = self._started[progress.stage] = (now, progress.done)
        self._done[progress.stage] = progress.done
        if progress.note:  # which says how far it is where that is of interest
            sys.stderr.write(f"{progress.note}\n")
            return
        if now - self._last < SECONDS_BETWEEN_LINES or now == began:
            return
        is_over = progress.done >= progress.total
        if is_over and now - began < 1:  # over before anybody had to wait for it
            return
        self._last = now
        rate = (progress.done - first) / (now - began)
        n_left = progress.total - progress.done
        speed = f", {_rate(rate)}" if rate else ""  # unknown while only one number is known
        left = f", {format_time_left(n_left / rate)}" if rate and n_left > 0 else ""
        sys.stderr.write(f"{progress.stage}: {progress.done:,} of {progress.total:,}{speed}{left}\n")


def _rate(per_second: float) -> str:
    """Return "1,234/s" or, for slow steps, "0.31/s"."""
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.2g}/s"
