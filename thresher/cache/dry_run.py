"""The clock of a dry run: stages are timed on a few batches, and nothing is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher.cache.keys import KEY_BYTES
from thresher.models.causal_lm.language_model import count_tokens_read

if TYPE_CHECKING:
    from thresher.cache.batch import Batch

ROUNDS = (8, 32, 128, 512, 2048)  # entries that are run, until a round takes long enough to be told from noise
ROUND_S = 0.5


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One step of computing a feature.

    Attributes:
        stage: its name, such as "loss".
        n: distinct entries: rows, or pairs of rows.
        n_cached: how many of them are in the cache.
        seconds: estimated for the others; None where it cannot be measured.
        tokens: estimated number that a language model reads for the others; None where none does or
            it is not known.
        bytes: that the others take in the cache.
        note: what should be known of the estimate, or "".
    """

    stage: str
    n: int
    n_cached: int
    seconds: float | None
    tokens: int | None = None
    bytes: int = 0
    note: str = ""

    @property
    def n_to_do(self) -> int:
        """Entries that must be computed."""
        return self.n - self.n_cached


@dataclass
class Rehearsal:
    """Gathers the stages of features that are rehearsed.

    Attributes:
        reads_cache: whether values that are stored count as done.
        stages: so far.
    """

    reads_cache: bool = True
    stages: list[StageCost] = field(default_factory=list)

    def run(
        self,
        feature: str,
        run_entries: Callable[[NDArray[np.int64]], Iterable[Batch]],
        size: NDArray[np.int64],
        together: NDArray[np.int64] | None,
        *,
        n_cached: int,
    ) -> list[tuple[NDArray[np.int64], Any]]:
        """Time a few rounds, note the stage, and return what was computed: entries and their values.

        Args:
            feature: name of the stage.
            run_entries: computes the given entries of those that are not cached.
            size: (m,) size of the text of each such entry: rounds take entries of every size.
            together: (m,) groups of entries that share work, so that only whole groups tell their
                cost; or None.
            n_cached: entries that are cached.
        """
        n_missing, n = len(size), len(size) + n_cached
        if not n_missing:
            self.stages.append(StageCost(stage=feature, n=n, n_cached=n_cached, seconds=0.0))
            return []
        longest = np.array([int(size.argmax())])
        found = [(longest[batch.positions], batch.values) for batch in run_entries(longest)]  # loads the model
        seconds, tokens, n_run = 0.0, 0, 0
        for n_wanted in ROUNDS:
            chosen = _spread(size, n_wanted) if together is None else _whole_groups(together, n_wanted)
            before, began = count_tokens_read(), time.perf_counter()
            found += [(chosen[batch.positions], batch.values) for batch in run_entries(chosen)]
            seconds, tokens, n_run = time.perf_counter() - began, count_tokens_read() - before, len(chosen)
            if seconds >= ROUND_S or n_run == n_missing:
                break
        one = found[0][1]
        self.stages.append(
            StageCost(
                stage=feature,
                n=n,
                n_cached=n_cached,
                seconds=seconds * n_missing / n_run,
                tokens=round(tokens * n_missing / n_run) if tokens else None,
                bytes=n_missing * (KEY_BYTES + one.nbytes // len(one)),
            )
        )
        return found


def _spread(size: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return n entries, evenly spread over the order of their sizes: their mean cost is close to that of all."""
    order = np.argsort(size, kind="stable")
    if n >= len(order):
        return order
    return np.sort(order[((np.arange(n) + 0.5) * len(order) / n).astype(np.int64)])


def _whole_groups(together: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the entries of some whole groups, about n entries and at least one group, of every size of groups."""
    names, counts = np.unique(together, return_counts=True)
    n_groups = min(len(names), max(1, round(n / counts.mean())))
    order = np.argsort(counts, kind="stable")
    chosen = names[order[((np.arange(n_groups) + 0.5) * len(names) / n_groups).astype(np.int64)]]
    return np.flatnonzero(np.isin(together, chosen))
