"""A TOML file that lists sources side by side, in the words of job files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.address import is_address
from thresher.artifacts.remote.fetch import localize
from thresher.dataset.hub import is_hub_id
from thresher.dataset.mixture.source import Source
from thresher.errors import InputError, SettingsError, did_you_mean

_PLACES = ("path", "files", "hub")
_KEYS = (*_PLACES, "name", "schema", "columns", "split", "config", "wanted")


def read_sources_file(path: Path) -> list[Source]:
    """Return the sources of a TOML file.

        [[sources]]
        path = "questions.csv"      # or files = [...], or hub = "owner/name", as in a job file
        columns = {prompt = "question", response = "answer"}

    Paths start at the folder of the file.

    Raises:
        InputError: the file cannot be read or is not TOML.
        SettingsError: a key is unknown, or a value is of another kind.
    """
    path = expand_path(localize(path))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: the file of sources must be readable, got '{error.strerror}'; check it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: a file of sources must be TOML, found '{error}'; fix it") from None
    for key in content:
        if key != "sources":
            hint = did_you_mean(key, ["sources"]) or (
                "; a job file is for 'thresher curate run'" if "output" in content else "; leave it out"
            )
            raise SettingsError(f"{path}: a file of sources has [[sources]] alone, found '{key}'{hint}")
    entries = content.get("sources")
    if not isinstance(entries, list) or not entries or not all(isinstance(one, dict) for one in entries):
        raise SettingsError(f"{path}: at least one [[sources]] is required, found none")
    return [_build_source(entry, path, number) for number, entry in enumerate(entries, start=1)]


def _build_source(entry: Mapping[str, Any], path: Path, number: int) -> Source:
    where = f"{path}: sources.{number}"
    for key in entry:
        if key not in _KEYS:
            raise SettingsError(f"{where}: unknown key '{key}'; known: {', '.join(_KEYS)}{did_you_mean(key, _KEYS)}")
    places = [key for key in _PLACES if key in entry]
    if len(places) != 1:
        raise SettingsError(f"{where}: must have exactly one of {', '.join(_PLACES)}, found {len(places)}")
    named = entry[places[0]]
    names = named if isinstance(named, list) else [named]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise SettingsError(f"{where}: {places[0]} must be text or a list of texts, got {named!r}")
    rows = [_resolve(name, path.parent, is_hub=places[0] == "hub") for name in names]
    settings = {key: value for key, value in entry.items() if key not in _PLACES}
    columns = settings.get("columns")
    if columns is not None and not (
        isinstance(columns, dict) and all(isinstance(name, str) for name in columns.values())
    ):
        raise SettingsError(f'{where}: columns must be a table such as {{prompt = "question"}}, got {columns!r}')
    try:
        return Source(rows[0] if len(rows) == 1 else rows, **{"name": None, **settings})
    except SettingsError as error:
        raise SettingsError(f"{path}: sources.{number}: {error}") from None


def _resolve(name: str, base: Path, *, is_hub: bool) -> str:
    """Return a path from the folder of the file; a Hub id stays."""
    if is_address(name):
        return name
    place = base / expand_path(name)
    return name if is_hub or (is_hub_id(name) and not place.exists() and not place.parent.is_dir()) else str(place)
