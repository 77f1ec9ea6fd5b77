"""The feature protocol, and how a feature is found by its name."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from thresher.errors import NotFoundError, did_you_mean
from thresher.features.container import Array
from thresher.features.context import FeatureContext

if TYPE_CHECKING:
    from thresher.dataset import Dataset

GROUP = "thresher.features"


@runtime_checkable
class FeatureProvider(Protocol):
    """Three members, no base class: a name, what stands behind the values, and `compute`."""

    name: ClassVar[str]

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return what determines the values besides the rows, such as a model's name and fingerprint.

        Two calls that describe themselves alike give the same values: it goes into the manifest and the identity of
        a result, and costs no model run.
        """

    def compute(self, dataset: Dataset, context: FeatureContext) -> Array:
        """Return (n, ...), one entry per row in dataset order.

        The entry of a row depends on that row alone: not on its place, not on the other rows, not on the cache.
        """


def available() -> dict[str, EntryPoint]:
    """Return every feature that is installed, ours and plug-ins', by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def load_provider(name: str) -> FeatureProvider:
    """Return the provider of that feature.

    Raises:
        NotFoundError: no feature has this name.
    """
    found = available()
    if name not in found:
        known = [*found, "column:NAME"]
        raise NotFoundError(f"feature '{name}' not found; available: {', '.join(known)}{did_you_mean(name, found)}")
    provider: FeatureProvider = found[name].load()()
    return provider
