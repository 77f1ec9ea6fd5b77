"""What computing features will take, found out by a rehearsal: a few batches are run and timed, and nothing is kept.

Every feature computes its values through `values_of`. With a `Rehearsal` in the cache, that function looks up what is
stored, runs a few rounds of batches on rows of every length, and fills the rest with values it has seen, so that steps
that build on one another are all rehearsed. Values of a rehearsal mean nothing; its counts and times do.

A provider whose cost is not told that way says it itself, by an optional method that runs no more than a few batches:

    def cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost]: ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher.features.cache import KEY_BYTES, FeatureCache
from thresher.features.language_model import tokens_read

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features.cached import Batch
    from thresher.features.context import FeatureContext
    from thresher.features.providers import FeatureProvider

ROUNDS = (8, 32, 128, 512, 2048)  # entries that are run, until a round takes long enough to be told from noise
ROUND_S = 0.5
PROBE_ROWS = 64  # that a feature is tried on first


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One step of computing a feature.

    Attributes:
        stage: its name, such as "loss".
        n: distinct entries: rows, or pairs of rows.
        n_cached: how many of them are in the cache.
        seconds: estimated for the others; None where it cannot be measured.
        tokens: estimated number that a language model reads for the others; None where none does or it is not known.
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
            together: (m,) groups of entries that share work, so that only whole groups tell their cost; or None.
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
            before, began = tokens_read(), time.perf_counter()
            found += [(chosen[batch.positions], batch.values) for batch in run_entries(chosen)]
            seconds, tokens, n_run = time.perf_counter() - began, tokens_read() - before, len(chosen)
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


def rehearse(provider: FeatureProvider, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
    """Return what computing a feature of these rows will take.

    The values that the cache of the context holds are counted as done; nothing is written into it. A feature that does
    not use `values_of` is computed for a few rows and its time taken as proportional to the rows.

    Args:
        provider: of the feature; its own `cost` counts where it has one.
        dataset: rows.
        context: models, device and cache.
    """
    own = getattr(provider, "cost", None)
    if own is not None:
        stages: list[StageCost] = own(dataset, context)
        return stages
    if type(provider).__module__.startswith("thresher."):
        return run_rehearsal(provider, dataset, context)
    few = dataset.take(np.unique(np.linspace(0, len(dataset) - 1, min(PROBE_ROWS, len(dataset))).astype(np.int64)))
    began = time.perf_counter()
    if run_rehearsal(provider, few, context):
        return run_rehearsal(provider, dataset, context)
    seconds = (time.perf_counter() - began) * len(dataset) / len(few)
    note = f"its time on {len(few)} rows, taken as proportional"
    return [StageCost(stage=provider.name, n=len(dataset), n_cached=0, seconds=seconds, note=note)]


def run_rehearsal(
    provider: FeatureProvider,
    dataset: Dataset,
    context: FeatureContext,
    *,
    reads_cache: bool = True,
) -> list[StageCost]:
    """Return the stages of a feature that uses `values_of`; `reads_cache` says whether stored values count as done."""
    rehearsal = Rehearsal(reads_cache=reads_cache and context.cache is not None)
    root = None if context.cache is None else context.cache.root
    provider.compute(dataset, replace(context, cache=FeatureCache(root, rehearsal=rehearsal), on_progress=None))
    return rehearsal.stages


def merged(stage: str, parts: Iterable[StageCost]) -> StageCost:
    """Return several steps as one."""
    found = list(parts)
    tokens = [part.tokens for part in found if part.tokens is not None]
    seconds = [part.seconds for part in found if part.seconds is not None]
    return StageCost(
        stage=stage,
        n=sum(part.n for part in found),
        n_cached=sum(part.n_cached for part in found),
        seconds=sum(seconds) if len(seconds) == len(found) else None,
        tokens=sum(tokens) if tokens else None,
        bytes=sum(part.bytes for part in found),
        note="; ".join(dict.fromkeys(part.note for part in found if part.note)),
    )
