"""Progress in notebooks: what runs for long shows how far it is, unless the caller listens himself.

`thresher.select` and the other arrows are given a listener that draws one line per stage where
IPython's kernel runs them; elsewhere, and with THRESHER_PROGRESS=0, they are left as they are.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from thresher.printable import escape_html
from thresher.progress import Progress

SECONDS_BETWEEN_UPDATES = 0.3
LISTENERS = {  # function -> the argument that takes a listener
    "select": "on_progress",
    "score": "on_progress",
    "curate": "on_progress",
    "correct": "on_progress",
    "grow": "on_progress",
    "learning_curve": "on_progress",
    "compare": "on_progress",
    "compare_grown": "on_progress",
    "tune": "on_progress",
    "advise": "on_progress",
    "mix": "on_progress",
    "rank_bases": "on_progress",
    "transfer": "on_progress",
    "rank_sources": "on_progress",
    "ask_labels": "on_progress",
    "add_labels": "on_progress",
    "refine_labels": "on_progress",
    "soup": "on_progress",
    "experts": "on_progress",
    "why": "on_progress",
    "train": "on_event",
}


def is_notebook() -> bool:
    """Tell whether a kernel of IPython runs this process, as in Jupyter."""
    if "ipykernel" not in sys.modules or os.environ.get("THRESHER_PROGRESS") == "0":
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def show_progress(name: str, function: Any) -> Any:
    """Return a function that shows its progress in a notebook; elsewhere the function itself.

    Args:
        name: of the function, one of `LISTENERS`.
        function: takes a listener.
    """
    if not is_notebook():
        return function
    argument = LISTENERS[name]

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        if keywords.get(argument) is not None:
            return function(*args, **keywords)
        board = ProgressBoard(_make_display())
        listen = board.show_event if argument == "on_event" else board.show
        try:
            return function(*args, **keywords, **{argument: listen})
        finally:
            board.draw()

    return call


def _make_display() -> Callable[[str], None]:
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)  # type: ignore[no-untyped-call]
    return lambda html: handle.update(HTML(html))  # type: ignore[no-untyped-call]


class ProgressBoard:
    """One line per stage with a bar, and the notes below; redrawn a few times a second.

    Args:
        draw_html: shows HTML in the place of what it showed before.
    """

    def __init__(self, draw_html: Callable[[str], None]) -> None:
        self._draw_html = draw_html
        self._stages: dict[str, Progress] = {}
        self._notes: dict[str, None] = {}
        self._drawn = 0.0

    def show(self, progress: Progress) -> None:
        """Take what a stage says, and redraw when it is time."""
        self._stages[progress.stage] = progress
        if progress.note:
            self._notes[progress.note] = None
        if time.monotonic() - self._drawn >= SECONDS_BETWEEN_UPDATES:
            self.draw()

    def show_event(self, event: Any) -> None:
        """Take what training says: a step of a run, or a note."""
        if event.kind in ("start", "step") or event.message:
            self.show(Progress(stage=event.stage, done=event.step, total=event.n_steps, note=event.message or None))

    def draw(self) -> None:
        """Draw all stages; texts are escaped."""
        self._drawn = time.monotonic()
        lines = [
            f"<div>{escape_html(one.stage)} <progress value='{one.done}' max='{max(one.total, 1)}'></progress> "
            f"{one.done:,} of {one.total:,}</div>"
            for one in self._stages.values()
            if one.total
        ]
        lines += [f"<div>{escape_html(note)}</div>" for note in self._notes]
        self._draw_html("".join(lines))
