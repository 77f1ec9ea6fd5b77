"""Methods with their settings and quotas in a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from thresher.artifacts.local_path import expand_path
from thresher.errors import InputError
from thresher.experiments.settings import BASELINE


def read_method_file(name: str, command: str) -> list[str]:
    """Return the methods of a TOML file as they are named elsewhere; any other name as it is.

    Args:
        name: METHOD, with settings, or a path that ends in .toml: a table [[methods]] for each,
            with its `name`, its settings, and `quota`.
        command: that asks, for the message.

    Raises:
        InputError: the file cannot be read, or is not such a list.
    """
    if not name.endswith(".toml"):
        return [name]
    try:
        content = tomllib.loads(expand_path(name).read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{command}: methods: {name} must be a readable TOML file ({reason}); correct it") from None
    tables = content.get("methods")
    if set(content) != {"methods"} or not isinstance(tables, list) or not tables:
        found = ", ".join(content) or "nothing"
        raise InputError(f"{command}: methods: {name} must hold [[methods]] and nothing else, found {found}")
    return [_write_method(table, f"{command}: methods: {name}") for table in tables]


def _write_method(table: Any, place: str) -> str:
    """Return a table of a method as people name it: METHOD NAME=VALUE ..."""
    if not isinstance(table, dict) or not str(table.get("name", "")).strip():
        raise InputError(f"{place}: each of [[methods]] must have a name, found {table!r}")
    words = [str(table["name"]).strip()]
    for setting, value in table.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if setting == "name":
            continue
        if not isinstance(value, str | int | float) or not text or text.split() != [text]:
            raise InputError(
                f"{place}: {words[0]}: {setting} must be a number, true, false or a text without spaces, got {value!r}"
            )
        words.append(f"{setting}={text}")
    return " ".join(words)


def list_methods(names: Sequence[str], command: str) -> list[str]:
    """Return the methods of an experiment once each, the baseline first.

    Raises:
        InputError: there is none.
    """
    methods = [method for name in _join_quotas(names) for method in read_method_file(name, command)]
    if not methods:
        raise InputError(f"{command}: at least one method is needed, got none")
    return list(dict.fromkeys([BASELINE, *methods]))


def _join_quotas(names: Sequence[str]) -> list[str]:
    """Return the names, with what a comma inside of a quota has cut off put back."""
    joined: list[str] = []
    for name in names:
        words = name.split()
        if joined and words and "=" in words[0] and "quota=" in joined[-1]:
            joined[-1] += f",{' '.join(words)}"
        elif words:
            joined.append(" ".join(words))
    return joined
