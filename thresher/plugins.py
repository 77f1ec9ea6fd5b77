"""Plug-ins by entry point: selectors, features and rules, found by name, built from settings."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, NamedTuple, TypeVar

from thresher.errors import NotFoundError, SettingsError, did_you_mean
from thresher.validation import build_settings

Contract = TypeVar("Contract")
NEAR_NAME = 0.75  # likeness from which a name is taken for another with a wrong letter
NEAR = 0.8  # a setting whose name is as like a member's is a member with a wrong letter


class Alias(NamedTuple):
    """Another name of a plug-in.

    Attributes:
        name: of the plug-in.
        settings: those that make it what the other name stands for.
    """

    name: str
    settings: Mapping[str, Any] = types.MappingProxyType({})


@dataclass(frozen=True)
class Registry(Generic[Contract]):
    """All plug-ins of one kind, ours and others'.

    Attributes:
        group: of entry points, such as "thresher.selectors".
        kind: the noun for messages: "selector".
        contract: base class that declares every public member.
        also: names to mention besides the installed ones.
        aliases: other names, in small letters.
        elsewhere: names of something else -> what that is, and where to find it.
    """

    group: str
    kind: str
    contract: type[Contract]
    also: tuple[str, ...] = ()
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def available(self) -> dict[str, EntryPoint]:
        """Return everything that is installed, by name."""
        return available(self.group)

    def resolve(self, name: str) -> Alias:
        """Return the plug-in that a name stands for.

        A name that is no alias, or is installed, stands for itself.
        """
        return Alias(name) if name in self.available() else self.aliases.get(name.lower(), Alias(name))

    def load(self, name: str) -> type[Contract]:
        """Return the class behind a name or an alias.

        Raises:
            NotFoundError: nothing in the group has this name.
            SettingsError: the class does not keep to the contract.
        """
        points, name = self.available(), self.resolve(name).name
        if name not in points:
            if name.lower() in self.elsewhere:
                raise NotFoundError(f"{self.kind} '{name}' not found; it is {self.elsewhere[name.lower()]}")
            known = ", ".join([*points, *self.also])
            # a name that is only somewhat alike is more often another method than a slip of the pen
            hint = did_you_mean(name, [*points, *self.aliases], cutoff=NEAR_NAME)
            raise NotFoundError(f"{self.kind} '{name}' not found; available: {known}{hint}")
        label = f"{self.kind} '{name}'"
        try:
            cls = points[name].load()
        except SettingsError as error:
            raise SettingsError(f"{label}: {error}") from None
        check_members(cls, self.contract, label)
        return typing.cast("type[Contract]", cls)

    def create(self, name: str, settings: Mapping[str, Any] | None = None) -> Contract:
        """Build a plug-in from its name and its settings.

        Args:
            name: as in the entry point, for example "facility-location".
            settings: values of its fields; strings are converted to the field's type.

        Raises:
            NotFoundError: nothing has this name.
            SettingsError: a setting is unknown, missing, or has an illegal value.
        """
        alias = self.resolve(name)
        plugin: Contract = build_settings(self.load(name), alias.name, {**alias.settings, **(settings or {})})
        return plugin


def check_members(cls: Any, contract: type, label: str) -> None:
    """Refuse a class that lacks a member of its contract, or has a public one beyond it.

    Args:
        cls: the class of a plug-in; its fields are settings and may have any name.
        contract: its base class; one between the two with `_extends_contract` declares more.
        label: what to call it in messages: "selector 'outlying'".

    Raises:
        SettingsError: it says which member, and the nearest declared one.
    """
    if not (isinstance(cls, type) and issubclass(cls, contract)):
        raise SettingsError(f"{label}: must inherit from {contract.__module__}.{contract.__name__}, got {cls!r}")
    declaring = [contract, *(part for part in cls.__mro__ if "_extends_contract" in vars(part))]
    members = sorted({name for part in declaring for name in dir(part) if not name.startswith("_")})
    settings = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    own = [part for part in cls.__mro__ if issubclass(part, contract)]
    public = {name for part in own for name in vars(part) if not name.startswith("_")} | settings
    for name in sorted(public.difference(members)):
        if name not in settings or difflib.get_close_matches(name, members, n=1, cutoff=NEAR):
            hint = did_you_mean(name, members) or f"; it may have: {', '.join(members)}, and helpers that begin with _"
            raise SettingsError(f"{label}: unknown member '{name}'{hint}")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise SettingsError(f"{label}: needs the member '{missing[0]}', found none")


def available(group: str) -> dict[str, EntryPoint]:
    """Return everything that is installed in an entry-point group, ours and others', by name."""
    points = _scan(entry_points, tuple((place, _changed(place)) for place in sys.path)).select(group=group)
    return {point.name: point for point in sorted(points, key=lambda point: point.name)}


@functools.lru_cache(maxsize=32)
def _scan(read: Callable[[], Any], places: tuple[tuple[str, int], ...]) -> Any:
    """Return the entry points of all groups, for `select`; their class differs by version.

    A scan reads the metadata of every installed package, some 20 ms, whatever the group.

    Args:
        read: `importlib.metadata.entry_points`.
        places: where packages are looked for, each with the time of its last change: an
            installation is a change.
    """
    del places
    return read()


def _changed(place: str) -> int:
    """Return when a folder of packages changed last, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0
