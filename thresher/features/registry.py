"""The feature protocol, and how a feature is found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import polars as pl

from thresher import plugins
from thresher.features.container import current_name
from thresher.features.context import FeatureContext
from thresher.numeric.arrays import Array

if TYPE_CHECKING:
    from thresher.dataset import Dataset

GROUP = "thresher.features"


@dataclass(frozen=True, kw_only=True)
class FeatureValues:
    """What a feature returns that can lack values.

    Attributes:
        values: (n,) floating, NaN where there is no value.
        missing: (n,) string: why there is no value, null where there is one.
        notes: facts for the manifest, such as the number of rows that were cut.
    """

    values: Array
    missing: pl.Series
    notes: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class FeatureProvider(Protocol):
    """Three members, no base class: a name, what stands behind the values, and `compute`.

    Five more are optional: `passes`, a class attribute that says in words how often a model reads
    the n rows; `cost` (see `thresher.features.cost`), for a provider whose cost a dry run cannot
    find out by itself; `compares_rows_of`, the kinds of rows whose array cannot be put together
    from those of parts of the rows; `describe_kind(context, kind)`, in place of `describe` where
    what stands behind the values depends on the kind; and `facts` (see `TellsFacts`).
    """

    name: ClassVar[str]

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return what determines the values besides the rows, such as a model's name and fingerprint.

        Two calls that describe themselves alike give the same values: it goes into the manifest and
        the identity of a result, and costs no model run.
        """

    def compute(self, dataset: Dataset, context: FeatureContext) -> Array | FeatureValues:
        """Return (n, ...), one entry per row in dataset order; `FeatureValues` if some rows have no value.

        The entry of a row depends on that row alone: not on its place, not on the other rows, not
        on the cache. A feature that compares rows says so, and keeps its values under the content
        of all that it compares.
        """


@runtime_checkable
class TellsFacts(Protocol):
    """A feature that has something to tell of the rows besides its values."""

    def facts(self, dataset: Dataset, context: FeatureContext) -> Mapping[str, int]:
        """Return counts for the manifest: a sum over the rows, the same whether or not the cache knows the values."""


def available() -> dict[str, EntryPoint]:
    """Return every feature that is installed, ours and plug-ins', by name."""
    return plugins.available(GROUP)


def load_provider(name: str) -> FeatureProvider:
    """Return the provider of that feature."""
    provider: FeatureProvider = plugins.load_class(
        GROUP, current_name(name), what="feature", also=("column:NAME", "number:NAME")
    )()
    return provider


def compares_rows(name: str, kind: str) -> bool:
    """Tell whether a feature of rows of that kind needs all rows at once: parts of them would give other values."""
    point = available().get(current_name(name))
    return point is not None and kind in getattr(point.load(), "compares_rows_of", ()) or is_of_pairs(name)


def is_of_pairs(name: str) -> bool:
    """Tell whether a feature is of pairs of rows: the rows it is measured with are then `context.examples`."""
    point = available().get(current_name(name))
    return point is not None and getattr(point.load(), "is_of_pairs", False)
