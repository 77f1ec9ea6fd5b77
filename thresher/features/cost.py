"""What computing a feature will take: its stages are run on a few batches, and nothing is stored.

A provider runs its stages through its context, so `estimate` gives it a context whose runner times
a few batches of each stage and fills the other values with those it has seen, on which the stages
that follow are estimated in turn. Such values mean nothing; the counts and times do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from thresher.cache.answer_cache import AnswerCache
from thresher.cache.batch import Batch
from thresher.cache.by_text import TextValues
from thresher.cache.keys import KEY_BYTES
from thresher.models.causal_lm.language_model import count_tokens_read
from thresher.models.stages import Answers, RequestStage, Stage, StageCost, StageRunner
from thresher.numeric.arrays import Array, Int64

if TYPE_CHECKING:
    from thresher.cache.feature_cache import FeatureCache
    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext
    from thresher.features.registry import FeatureProvider
    from thresher.progress import OnProgress

PROBE_ROWS = 64  # of a feature without stages
# texts that are run, until a round takes long enough to stand out from noise
ROUNDS = (8, 32, 128, 512, 2048)
ROUND_S = 0.5
SERVER_NOTE = "requests to a server, which is not contacted in a dry run; its time and price are unknown"


def estimate(provider: FeatureProvider, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
    """Return what computing a feature of these rows will take.

    Values that the cache of the context holds count as done; nothing is written into it. A feature
    that runs no stage is computed for a few rows, and its time taken as proportional to the rows.

    Args:
        provider: of the feature; its own estimate counts where it has one.
        dataset: rows, at least one.
        context: models, device and cache.
    """
    stages = provider.estimate_cost(dataset, context)
    if stages is not None:
        return stages
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(PROBE_ROWS, len(dataset))).astype(np.int64))
    began = time.perf_counter()
    try:
        provider.compute(dataset.take(rows), replace(context, on_progress=None, runner=_Refusal()))
    except _HasStagesError:
        return estimate_stages(provider, dataset, context)
    seconds = (time.perf_counter() - began) * len(dataset) / len(rows)
    note = f"its time on {len(rows)} rows, taken as proportional"
    return [StageCost(stage=provider.name, n=len(dataset), n_cached=0, seconds=seconds, note=note)]


def estimate_stages(
    provider: FeatureProvider, dataset: Dataset, context: FeatureContext, *, reads_cache: bool = True
) -> list[StageCost]:
    """Return what each stage of a feature takes, those of the same name as one.

    Args:
        provider: of a feature that runs stages.
        dataset: rows.
        context: models, device and cache.
        reads_cache: whether stored values count as done.
    """
    return estimate_steps(partial(provider.compute, dataset), context, reads_cache=reads_cache)


def estimate_steps(
    run: Callable[[FeatureContext], object], context: FeatureContext, *, reads_cache: bool = True
) -> list[StageCost]:
    """Return what each stage of a computation takes, those of the same name as one.

    Args:
        run: runs stages in the context that it is given.
        context: models, device and cache.
        reads_cache: whether stored values count as done.
    """
    runner = _Estimator(reads_cache=reads_cache)
    run(replace(context, on_progress=None, runner=runner))
    names = dict.fromkeys(cost.stage for cost in runner.costs)
    return [merge_costs(name, [cost for cost in runner.costs if cost.stage == name]) for name in names]


def merge_costs(stage: str, parts: Iterable[StageCost]) -> StageCost:
    """Return several stages as one."""
    costs = list(parts)
    tokens = [cost.tokens for cost in costs if cost.tokens is not None]
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    return StageCost(
        stage=stage,
        n=sum(cost.n for cost in costs),
        n_cached=sum(cost.n_cached for cost in costs),
        seconds=sum(seconds) if len(seconds) == len(costs) else None,
        tokens=sum(tokens) if tokens else None,
        bytes=sum(cost.bytes for cost in costs),
        note="; ".join(dict.fromkeys(cost.note for cost in costs if cost.note)),
    )


class _HasStagesError(Exception):
    """A feature runs stages, so that its cost can be told from them."""


class _Refusal(StageRunner):
    """Runs no stage."""

    def run_stage(self, stage: Stage, cache: FeatureCache | None, on_progress: OnProgress | None) -> Array | None:
        raise _HasStagesError

    def run_requests(self, stage: RequestStage, cache: FeatureCache | None) -> Answers:
        raise _HasStagesError


class _Estimator(StageRunner):
    """Runs a few batches of each stage, and notes what all of it would take.

    Attributes:
        costs: of the stages so far.
    """

    def __init__(self, *, reads_cache: bool) -> None:
        self.costs: list[StageCost] = []
        self._reads_cache = reads_cache

    def run_stage(self, stage: Stage, cache: FeatureCache | None, on_progress: OnProgress | None) -> Array | None:
        """Return stored and sampled values, and repeats of the sampled ones for the others."""
        del on_progress
        if len(stage.texts) == 0:
            return None
        values = TextValues(stage.texts, stage.name, folder=None if cache is None else cache.root)
        partition = stage.open_partition(cache)
        if partition is not None and self._reads_cache:
            for positions, stored in partition.read(values.keys, on_damage=lambda _: None, marks_used=False):
                values.fill(positions, stored)
        n_cached, missing = values.n_done, np.flatnonzero(values.is_missing)
        if not len(missing):
            self.costs.append(StageCost(stage=stage.name, n=n_cached, n_cached=n_cached, seconds=0.0))
            return values.spread()
        rows = values.first[missing]
        sizes = stage.texts.str.len_bytes().to_numpy().astype(np.int64) if stage.sizes is None else stage.sizes
        sample = _run_sample(
            lambda chosen: stage.compute(stage.texts.gather(rows[chosen])),
            sizes[rows],
            None if stage.groups is None else stage.groups[rows],
        )
        for batch in sample.batches:
            values.fill(missing[batch.positions], batch.values)
        one = sample.batches[-1].values
        self.costs.append(
            StageCost(
                stage=stage.name,
                n=n_cached + len(missing),
                n_cached=n_cached,
                seconds=sample.seconds * len(missing) / sample.n,
                tokens=round(sample.tokens * len(missing) / sample.n) or None,
                bytes=len(missing) * (KEY_BYTES + one.nbytes // len(one)),
            )
        )
        rest = np.flatnonzero(values.is_missing)
        values.fill(rest, one[np.arange(len(rest)) % len(one)])
        return values.spread()

    def run_requests(self, stage: RequestStage, cache: FeatureCache | None) -> Answers:
        """Return stored answers and placeholders, and count the requests; none is sent."""
        stored: Answers = {}
        if cache is not None and self._reads_cache:
            stored = AnswerCache.read_stored(cache.root, stage.keys)
        self.costs.append(
            StageCost(stage=stage.name, n=len(stage.keys), n_cached=len(stored), seconds=None, note=SERVER_NOTE)
        )
        return {key: stored.get(key, dict(stage.placeholder)) for key in stage.keys}


@dataclass(frozen=True)
class _Sample:
    """What running some texts gave: all batches, and size, time and tokens of the last round."""

    batches: list[Batch]
    n: int
    seconds: float
    tokens: int


def _run_sample(run: Callable[[Int64], Iterable[Batch]], sizes: Int64, groups: Int64 | None) -> _Sample:
    """Run rounds of more and more texts until one takes long enough.

    Args:
        run: computes the texts at some positions.
        sizes: (m,) of all texts: rounds take texts of every size.
        groups: (m,) of texts that share work, of which rounds take whole ones; or None.
    """

    def run_texts(chosen: Int64) -> list[Batch]:
        return [Batch(chosen[batch.positions], batch.values) for batch in run(chosen)]

    batches = run_texts(np.array([int(sizes.argmax())]))  # loads the model, and is not timed
    for n_texts in ROUNDS:
        chosen = _spread_sizes(sizes, n_texts) if groups is None else _whole_groups(groups, n_texts)
        tokens_before, began = count_tokens_read(), time.perf_counter()
        batches += run_texts(chosen)
        seconds, tokens = time.perf_counter() - began, count_tokens_read() - tokens_before
        if seconds >= ROUND_S or len(chosen) == len(sizes):
            break
    return _Sample(batches, len(chosen), seconds, tokens)


def _spread_sizes(sizes: Int64, n: int) -> Int64:
    """Return n positions, evenly spread over the order of sizes: their mean cost is typical."""
    order = np.argsort(sizes, kind="stable")
    if n >= len(order):
        return order
    return np.sort(order[((np.arange(n) + 0.5) * len(order) / n).astype(np.int64)])


def _whole_groups(groups: Int64, n: int) -> Int64:
    """Return the positions of some whole groups of every size: at least one, about n in all."""
    names, counts = np.unique(groups, return_counts=True)
    n_groups = min(len(names), max(1, round(n / counts.mean())))
    order = np.argsort(counts, kind="stable")
    chosen = names[order[((np.arange(n_groups) + 0.5) * len(names) / n_groups).astype(np.int64)]]
    return np.flatnonzero(np.isin(groups, chosen))
