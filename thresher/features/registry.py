"""The contract of features, and how a feature is found by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from thresher.features.container import current_name
from thresher.features.context import FeatureContext
from thresher.numeric.arrays import Array
from thresher.plugins import Registry

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.models.stages import StageCost


@dataclass(frozen=True, kw_only=True)
class FeatureValues:
    """What a feature returns that can lack values.

    Attributes:
        values: (n,) floating, NaN where there is no value.
        missing: (n,) string: why there is no value, null where there is one.
        notes: facts for the manifest, such as the number of rows that were cut.
        reasons: (n,) string or None: why a value is what it is, null where there is nothing to say.
    """

    values: Array
    missing: pl.Series
    notes: Mapping[str, int] = field(default_factory=dict)
    reasons: pl.Series | None = None


class FeatureProvider(ABC):
    """Base of every feature: a name, what stands behind the values, and `compute`.

    The rest has defaults.

    A public member that is not declared here is refused when the feature is loaded; helpers of your
    own begin with `_`.
    """

    passes: ClassVar[str] = "not declared"
    """How often a model reads the n rows, in words."""

    whole_pool_kinds: ClassVar[frozenset[str]] = frozenset()
    """Kinds of rows that are compared with one another: parts of a pool would give other values."""

    is_pairwise: ClassVar[bool] = False
    """Rows are measured together with other rows, which are then `context.examples`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the entry point; a class attribute will do."""

    @abstractmethod
    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return what determines the values besides the rows: a model's name, a fingerprint.

        Two calls that describe themselves alike give the same values: it goes into the manifest and
        the identity of a result, and costs no model run.
        """

    def describe_kind(self, context: FeatureContext, kind: str) -> dict[str, str]:
        """Return what `describe` does, where it depends on the kind of the rows."""
        del kind
        return self.describe(context)

    @abstractmethod
    def compute(self, dataset: Dataset, context: FeatureContext) -> Array | FeatureValues:
        """Return (n, ...), one entry per row in dataset order.

        `FeatureValues` if some rows have no value.

        The entry of a row depends on that row alone: not on its place, not on the other rows, not
        on the cache. A feature that compares rows says so, and keeps its values under the content
        of all that it compares.
        """

    def facts(self, dataset: Dataset, context: FeatureContext) -> Mapping[str, int]:
        """Return counts for the manifest: sums over the rows, whatever the cache knows."""
        del dataset, context
        return {}

    def estimate_cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost] | None:
        """Return what `compute` will take, from a few batches at most.

        None: a dry run can find out by itself.

        See `thresher.features.cost`.
        """
        del dataset, context
        return None


def describe_missing(feature: str, notes: Mapping[str, int]) -> list[str]:
    """Return one sentence where some of the `rows` are counted as `rows_missing`, or none."""
    missing, n = notes["rows_missing"], notes["rows"]
    return [f"{feature}: {missing:,} of {n:,} rows have no value"] if missing else []


FEATURES = Registry(
    "thresher.features",
    "feature",
    FeatureProvider,  # type: ignore[type-abstract]
    also=("column:NAME", "number:NAME"),
)
available = FEATURES.available


def load_provider(name: str) -> FeatureProvider:
    """Return the provider of that feature."""
    return FEATURES.load(current_name(name))()


def needs_whole_pool(name: str, kind: str) -> bool:
    """Tell whether a feature needs all rows at once: parts of them would give other values."""
    if current_name(name) not in available():
        return False
    provider = FEATURES.load(current_name(name))
    return kind in provider.whole_pool_kinds or provider.is_pairwise


def is_pairwise(name: str) -> bool:
    """Tell whether rows are measured together with others: these are then `context.examples`."""
    return current_name(name) in available() and FEATURES.load(current_name(name)).is_pairwise
