"""How a selector is found by its name, and what else may stand for one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from thresher.errors import InputError
from thresher.plugins import Registry, check_members
from thresher.selectors.aliases import ALIASES, ELSEWHERE
from thresher.selectors.contract import Selector
from thresher.selectors.functions import FunctionSelector

SELECTORS = Registry(
    "thresher.selectors",
    "selector",
    Selector,  # type: ignore[type-abstract]
    aliases=ALIASES,
    elsewhere=ELSEWHERE,
)
available, load_class, create = SELECTORS.available, SELECTORS.load, SELECTORS.create


Method = str | Selector | Callable[..., Any]
"""What can be given as a method: a name, a selector with its settings, or a function."""


def as_selector(method: Method, settings: Mapping[str, Any] | None = None) -> Selector:
    """Return the selector that a user means.

    Args:
        method: name of a selector, a selector with its settings, or a function (see
            `FunctionSelector`).
        settings: for a name.

    Raises:
        NotFoundError: no selector has this name.
        SettingsError: it has no such setting, or does not keep to the contract.
        InputError: it is none of these, or settings were given to a selector that has its own.
    """
    if isinstance(method, str):
        return create(method, settings)
    if settings:
        owner = f"{type(method).__name__}(...)" if isinstance(method, Selector) else "the function"
        raise InputError(f"settings: give them to {owner} itself, found {', '.join(settings)}")
    if isinstance(method, Selector):
        check_members(type(method), Selector, f"selector '{method.name}'")
        return method
    if inspect.isfunction(method):
        return FunctionSelector(method)
    raise InputError(
        f"method: must be the name of a selector, a selector with its settings, or a function, got {method!r}"
    )
