"""What computing features will take, found out by a rehearsal: a few batches are run and timed, and nothing is kept.

Every feature computes its values through `compute_cached`. With a `Rehearsal` in the cache, that
function looks up what is stored, runs a few rounds of batches on rows of every length, and fills
the rest with values it has seen, so that steps that build on one another are all rehearsed. Values
of a rehearsal mean nothing; its counts and times do.

A provider whose cost is not told that way says it itself, by an optional method that runs no more
than a few batches:

    def estimate_cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost]: ...
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from thresher.cache.dry_run import Rehearsal, StageCost
from thresher.cache.feature_cache import FeatureCache

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext
    from thresher.features.registry import FeatureProvider

PROBE_ROWS = 64  # that a feature is tried on first


def rehearse(provider: FeatureProvider, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
    """Return what computing a feature of these rows will take.

    The values that the cache of the context holds are counted as done; nothing is written into it.
    A feature that does not use `compute_cached` is computed for a few rows and its time taken as
    proportional to the rows.

    Args:
        provider: of the feature; its own `estimate_cost` counts where it has one.
        dataset: rows.
        context: models, device and cache.
    """
    stages = provider.estimate_cost(dataset, context)
    if stages is not None:
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
    """Return the stages of a feature that uses `compute_cached`; stored values count as done with `reads_cache`."""
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
