"""The selector protocol, and how a selector is found by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from thresher.errors import NotFoundError, SettingsError, did_you_mean
from thresher.features.container import Features
from thresher.scores import Scores

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
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def load_class(name: str) -> Any:
    """Return the class behind a selector's name.

    Raises:
        NotFoundError: no selector has this name.
    """
    found = available()
    if name not in found:
        raise NotFoundError(f"selector '{name}' not found; available: {', '.join(found)}{did_you_mean(name, found)}")
    return found[name].load()


def create(name: str, settings: Mapping[str, Any] | None = None) -> Selector:
    """Build a selector from its name and its settings.

    Args:
        name: as in the entry point, for example "facility-location".
        settings: values of the selector's fields; strings are converted to the field's type.

    Raises:
        NotFoundError: no selector has this name.
        SettingsError: a setting is unknown or has an illegal value.
    """
    cls = load_class(name)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise SettingsError(f"{name}: unknown setting '{key}'; it has: {known}{did_you_mean(key, fields)}")
        values[key] = _converted(name, fields[key], value)
    selector: Selector = cls(**values)
    return selector


def _converted(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """Turn a string from the command line into the type of the field's default."""
    kind: Any = type(field.default)
    if field.default is None:  # not set: the annotation, a string such as "int | None", tells the type
        kind = {"int": int, "float": float}.get(str(field.type).removesuffix(" | None"), str)
    if not isinstance(value, str) or kind is str:
        return value
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if kind in (int, float):
            return kind(value)
    except (KeyError, ValueError):
        raise SettingsError(f"{name}: {field.name} must be {kind.__name__}, got '{value}'") from None
    return value
