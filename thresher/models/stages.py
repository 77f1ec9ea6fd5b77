"""Steps of computing values: which texts, by what, stored where; and who runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from thresher.cache.batch import ComputeBatches
from thresher.cache.by_text import compute_cached
from thresher.cache.feature_cache import CachePartition, FeatureCache
from thresher.numeric.arrays import Array, Int64
from thresher.progress import OnProgress

Answers = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Texts, each with a value that is a function of it alone.

    Attributes:
        name: for progress and estimates, such as "confidence: agreement".
        texts: (n,) string, no nulls.
        compute: yields the values of the texts it is given, in any order, in batches.
        feature: folder of the cache that the values are stored in.
        model: behind the values, for people.
        fingerprint: of all that determines a value besides its text.
        groups: (n,) of texts that share work, so that only whole groups show their cost; or None.
        sizes: (n,) of what a text stands for, where it is the key of something longer; or None.
    """

    name: str
    texts: pl.Series
    compute: ComputeBatches
    feature: str
    model: str
    fingerprint: str
    groups: Int64 | None = None
    sizes: Int64 | None = None

    def open_partition(self, cache: FeatureCache | None) -> CachePartition | None:
        """Return where the values are stored, if anywhere."""
        return None if cache is None else cache.partition(self.feature, self.model, self.fingerprint)


@dataclass(frozen=True, kw_only=True)
class RequestStage:
    """Requests to a server.

    Attributes:
        name: for estimates.
        keys: of the answers in the answer cache, distinct.
        fetch: returns the answers by key, asking the server for those that are not stored.
        placeholder: an answer of the same form, for estimates.
    """

    name: str
    keys: Sequence[str]
    fetch: Callable[[], Answers]
    placeholder: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage of computing a feature takes.

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


class StageRunner:
    """Runs stages as they come; `thresher.features.cost` has one that estimates what they take."""

    def run_stage(self, stage: Stage, cache: FeatureCache | None, on_progress: OnProgress | None) -> Array | None:
        """Return the (n, ...) values of a stage, stored ones from the cache; None without texts."""
        return compute_cached(
            stage.texts,
            stage.compute,
            feature=stage.name,
            partition=stage.open_partition(cache),
            on_progress=on_progress,
        )

    def run_requests(self, stage: RequestStage, cache: FeatureCache | None) -> Answers:
        """Return the answers of a server, by key."""
        del cache
        return stage.fetch()
