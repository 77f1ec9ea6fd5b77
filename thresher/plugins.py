"""Plug-ins by entry point: how a selector, a feature or a rule is found by its name and built from settings."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from thresher.errors import NotFoundError, SettingsError, did_you_mean

_IN_WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of texts"}


def available(group: str) -> dict[str, EntryPoint]:
    """Return everything that is installed in an entry-point group, ours and others', by name."""
    return dict(_scanned(group, entry_points, tuple((place, _changed(place)) for place in sys.path)))


@functools.lru_cache(maxsize=32)
def _scanned(
    group: str, scan: Callable[..., Iterable[EntryPoint]], places: tuple[tuple[str, int], ...]
) -> Mapping[str, EntryPoint]:
    """Return what `available` does. A scan reads the metadata of every installed package, some 20 ms.

    Args:
        group: of entry points.
        scan: `importlib.metadata.entry_points`.
        places: where packages are looked for, each with the time of its last change: an
            installation is a change.
    """
    del places
    return {point.name: point for point in sorted(scan(group=group), key=lambda point: point.name)}


def _changed(place: str) -> int:
    """Return when a folder of packages changed last, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0


def load_class(group: str, name: str, *, what: str, also: Iterable[str] = ()) -> Any:
    """Return the class behind a name.

    Args:
        group: of entry points, such as "thresher.selectors".
        name: as in the entry point.
        what: the noun for the message: "selector".
        also: names to tell of besides the installed ones.

    Raises:
        NotFoundError: nothing in the group has this name.
    """
    found = available(group)
    if name not in found:
        known = ", ".join([*found, *also])
        raise NotFoundError(f"{what} '{name}' not found; available: {known}{did_you_mean(name, found)}")
    return found[name].load()


def build(cls: Any, name: str, settings: Mapping[str, Any] | None) -> Any:
    """Build a plug-in from its settings.

    Args:
        cls: a dataclass whose fields are its settings.
        name: for messages.
        settings: values of the fields; strings are converted to the field's type.

    Raises:
        SettingsError: a setting is unknown, missing, or has an illegal value.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, value in (settings or {}).items():
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise SettingsError(f"{name}: unknown setting '{key}'; it has: {known}{did_you_mean(key, fields)}")
        values[key] = _converted(name, fields[key], value)
    missing = [key for key, field in fields.items() if key not in values and _is_required(field)]
    if missing:
        raise SettingsError(f"{name}: needs the setting '{missing[0]}', found none; give {missing[0]}=VALUE")
    return cls(**values)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _converted(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """Turn a string from the command line into the type that the field declares; other values must have it already.

    Numbers are left to the plug-in, which checks their range too.
    """
    kind = _kind(field)
    if not isinstance(value, str):
        return _of_type(name, field, value)
    if kind is str:
        return value
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if kind is tuple:
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return kind(value)
    except (KeyError, ValueError):
        raise SettingsError(f"{name}: {field.name} must be {_IN_WORDS[kind]}, got '{value}'") from None


def _of_type(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """Return a value of text, truth or texts as it is, or refuse it.

    Raises:
        SettingsError: it is of another type.
    """
    declared = str(getattr(field.type, "__name__", field.type)).removesuffix(" | None")
    if value is None and field.default is None:
        return value
    if declared.startswith("tuple[str"):
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif declared != "str" and (declared != "bool" or isinstance(value, bool)):
        return value
    wanted = {"str": "text", "bool": "true or false"}.get(declared, "a list of texts")
    raise SettingsError(f"{name}: {field.name} must be {wanted}, got {value!r}")


def _kind(field: dataclasses.Field[Any]) -> type:
    """Return bool, int, float, tuple or str: the type of the default, else what the annotation says."""
    default = field.default
    if default is not None and default is not dataclasses.MISSING:
        return type(default) if isinstance(default, bool | int | float | tuple) else str
    text = str(field.type).removesuffix(" | None")
    if isinstance(field.type, types.UnionType | type):  # a module without postponed annotations
        text = next(part for part in typing.get_args(field.type) or (field.type,) if part is not type(None)).__name__
    return {"int": int, "float": float, "bool": bool}.get(text, tuple if text.startswith("tuple") else str)
