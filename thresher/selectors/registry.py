"""The selector protocol, and how a selector is found by its name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from thresher import plugins
from thresher.features.container import Features
from thresher.subset.scores import Scores

GROUP = "thresher.selectors"


@runtime_checkable
class Selector(Protocol):
    """Three members, no base class: a name, the features it needs, and a pure `score`.

    A selector is a frozen dataclass whose fields are its settings. `score` reads nothing but its
    arguments: the same features and generator give the same bytes. One that looks at rows the user
    already has says so with a class attribute `accepts = frozenset({"existing_embedding"})`, and
    finds them in `features.context`. One whose values are ranks, with no meaning to a threshold,
    has `ranks_only = True`.
    """

    name: ClassVar[str]

    @property
    def needs(self) -> frozenset[str]:
        """Names of the features to compute before `score` is called."""

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row.

        Args:
            features: holds at least `needs`.
            n_ranked: how many rows the caller will look at, 1..n. A method that ranks greedily may
                stop there and give -inf to the others; a method that scores each row alone ignores
                it. The ranking for k is a prefix of the ranking for any larger number.
            rng: the only source of randomness.
        """


def available() -> dict[str, EntryPoint]:
    """Return every selector that is installed, ours and plug-ins', by name."""
    return plugins.available(GROUP)


def load_class(name: str) -> Any:
    """Return the class behind a selector's name."""
    return plugins.load_class(GROUP, name, what="selector")


def create(name: str, settings: Mapping[str, Any] | None = None) -> Selector:
    """Build a selector from its name and its settings.

    Args:
        name: as in the entry point, for example "facility-location".
        settings: values of the selector's fields; strings are converted to the field's type.
    """
    selector: Selector = plugins.build(load_class(name), name, settings)
    return selector
