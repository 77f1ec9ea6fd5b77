"""Cells that the machine ended: how often they are tried again, and what is said of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thresher.errors import IncompleteError, InputError
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.experiment import Experiment
from thresher.progress import OnProgress, Progress

N_TRIES = 3  # of a cell with all workers; then one with half of them, with a quarter, ..., alone

OnRetry = Callable[[Cell, str], None]  # hears of a cell that the machine ended, and why


@dataclass
class Round:
    """Cells that are run by so many workers at once, each tried so many times.

    Attributes:
        experiment: that they share.
        cells: all that were asked.
        keys: of the cells that are not done, by index.
        on_retry: hears of cells that the machine ended.
        waiting: indices of the cells that no worker is at.
        n_workers: at once.
        n_tries: of each cell.
        n_failures: tries so far that the machine ended, by index.
    """

    experiment: Experiment
    cells: Sequence[Cell]
    keys: Mapping[int, str]
    on_retry: OnRetry | None
    waiting: deque[int]
    n_workers: int
    n_tries: int
    n_failures: Counter[int] = field(default_factory=Counter)

    def try_again(self, index: int, outcome: Outcome) -> bool:
        """Let a cell wait for another try, if the machine ended it and it has one left."""
        if not outcome.is_unfinished:
            return False
        if self.on_retry is not None:
            self.on_retry(self.cells[index], str(outcome.reason))
        self.n_failures[index] += 1
        if self.n_failures[index] >= self.n_tries:
            return False
        self.waiting.append(index)
        return True


def run_rounds(
    experiment: Experiment,
    cells: Sequence[Cell],
    keys: Mapping[int, str],
    run_round: Callable[[Round], Iterator[tuple[int, Outcome]]],
    *,
    n_workers: int,
    on_retry: OnRetry | None,
) -> Iterator[tuple[int, Outcome]]:
    """Run cells, and those that the machine ended again with fewer workers: each has more memory.

    Args:
        experiment: that they share.
        cells: all that were asked.
        keys: of those to run, by index.
        run_round: yields each index of a round with its outcome.
        n_workers: at once in the first round.
        on_retry: hears of cells that the machine ended.

    Yields:
        Every index once; at the end those that could not be finished.
    """
    todo, n_tries = list(keys), N_TRIES
    unfinished: dict[int, Outcome] = {}
    while todo:
        unfinished = {}
        for index, outcome in run_round(Round(experiment, cells, keys, on_retry, deque(todo), n_workers, n_tries)):
            if outcome.is_unfinished:
                unfinished[index] = outcome
            else:
                yield index, outcome
        if n_workers == 1:
            break
        todo, n_workers, n_tries = sorted(unfinished), max(1, min(n_workers, len(unfinished)) // 2), 1
    yield from unfinished.items()


def leave_unfinished(key: str, reason: str) -> Outcome:
    """Return the outcome of a cell that the machine ended."""
    return Outcome(key=key, outcomes=None, facts={}, reason=reason, is_unfinished=True)


def describe_unfinished(unfinished: Sequence[Mapping[str, Any]]) -> str:
    """Say how many cells were not finished, why, and what to do.

    Args:
        unfinished: a mapping with `reason` for each, at least one.
    """
    n, first = len(unfinished), unfinished[0]["reason"]
    cells = "a run" if n == 1 else f"{n:,} runs"
    return f"{cells} could not be finished ({first}); run the same command again to complete the result"


def require_results(command: str, outcomes: Iterable[Outcome], unfinished: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a call of which no cell has a result.

    Args:
        command: that ran the cells.
        outcomes: of all cells.
        unfinished: a mapping with `reason` for each cell that the machine ended.

    Raises:
        IncompleteError: the machine ended some of them.
        InputError: every cell failed.
    """
    reasons = [outcome.reason for outcome in outcomes]
    failed = [reason for reason in reasons if reason is not None]
    if not failed or len(failed) < len(reasons):
        return
    if unfinished:
        raise IncompleteError(f"{command}: {describe_unfinished(unfinished)}")
    raise InputError(f"{command}: all {len(failed)} cells failed; the first one by {failed[0]}")


def build_retry_listener(on_progress: OnProgress | None) -> OnRetry | None:
    """Return what tells a listener of a cell that the machine ended."""
    if on_progress is None:
        return None

    def tell(cell: Cell, reason: str) -> None:
        note = f"{cell.method}, {cell.n_rows:,} rows, seed {cell.seed}: this try was not finished ({reason})"
        on_progress(Progress(stage="tries not finished", done=1, total=1, note=note))

    return tell
