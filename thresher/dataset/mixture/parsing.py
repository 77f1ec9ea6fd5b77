"""Sources as people write them: a path with settings, a Hub id with its split, a TOML file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.address import is_address, strip_file_scheme
from thresher.dataset.hub import is_hub_id
from thresher.dataset.mixture.source import Source
from thresher.dataset.mixture.sources_file import read_sources_file
from thresher.dataset.schema import ROLES
from thresher.dataset.settings import SourceSettings
from thresher.errors import SettingsError, did_you_mean

SYNTAX = (
    "SOURCE:KEY=VALUE,... with the keys schema, split, config, wanted, or a role and its column, as prompt=question"
)
_KEYS = tuple(each.name for each in fields(SourceSettings) if each.name != "columns")
_PREFIXES = ("columns", "map")  # before the first role, as in columns=prompt=question
_SETTINGS = re.compile(r"(.+?):(?=[A-Za-z][\w-]*=)(.*)", re.DOTALL)
_COLON = re.compile(r":(?![^\[]*\])")  # not within train[:10%]


def list_sources(rows: Any) -> list[Source]:
    """Return the sources that a user named: one, or several side by side.

    Args:
        rows: anything that `load` takes: a text may carry settings, or name a TOML file.

    Raises:
        InputError: a TOML file cannot be read or says something else.
        SettingsError: a setting is unknown or illegal.
    """
    if isinstance(rows, Source):
        inner = list_sources(rows.rows)
        return [replace(one.add(rows.settings), name=rows.name if len(inner) == 1 else one.name) for one in inner]
    if isinstance(rows, str | Path):
        return parse_source(rows)
    if isinstance(rows, list | tuple) and any(isinstance(one, Source) for one in rows):
        return [source for one in rows for source in list_sources(one)]
    if isinstance(rows, list | tuple) and all(isinstance(one, str | Path) for one in rows):
        sources = [source for one in rows for source in parse_source(one)]
        if any(source.settings for source in sources):
            return sources
    return [Source(rows)]


_FIRST_KEYS = frozenset({*_KEYS, *_PREFIXES, *ROLES})


def parse_source(text: str | Path) -> list[Source]:
    """Return the source that a text names, with the settings that it carries; those of a TOML file.

        pool.jsonl    pool.csv:prompt=question,response=answer    owner/name:train
        owner/name:config:split    folder:test    sources.toml

    A text that is the path of a file or a folder is that path.

    Raises:
        InputError: a TOML file cannot be read or says something else.
        SettingsError: a setting is unknown or illegal.
    """
    path = str(text)
    if not is_address(path):
        text = path = strip_file_scheme(path)
    if os.path.exists(os.path.expanduser(path)):
        return read_sources_file(Path(path)) if path.lower().endswith(".toml") else [Source(text)]
    match = _SETTINGS.fullmatch(path)
    if match is not None and is_address(path) and match[2].partition("=")[0].strip() not in _FIRST_KEYS:
        match = None  # a colon and an equals sign can be part of an address
    path, pairs = (path, "") if match is None else (match[1], match[2])
    if path.lower().endswith(".toml") and match is None:
        return read_sources_file(Path(path))
    has_split = ":" in path and not is_address(path)
    source = _parse_split(path) if has_split else Source(path if match or isinstance(text, str) else text)
    return [source if match is None else source.add(_parse_settings(pairs, str(text)))]


def _parse_split(path: str) -> Source:
    """Return the source of a Hub id or a folder with its split, ID:split or ID:config:split."""
    head, *rest = _COLON.split(path)
    is_place = os.path.isdir(expand_path(head)) or is_hub_id(head)
    if not is_place or not rest or len(rest) > 2 or not all(rest):
        return Source(path)
    return Source(head, config=rest[0] if len(rest) == 2 else None, split=rest[-1])


def _parse_settings(pairs: str, text: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    columns: dict[str, str] = {}
    for pair in pairs.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if key in _PREFIXES and "=" in value:
            key, equals, value = (part.strip() for part in value.partition("="))
        if not (key and equals and value):
            raise SettingsError(f"{text}: must be {SYNTAX}; got '{pair}'")
        known = (*_KEYS, *ROLES)
        if key not in known:
            raise SettingsError(f"{text}: unknown key '{key}'; known: {', '.join(known)}{did_you_mean(key, known)}")
        home = settings if key in _KEYS else columns
        if key in home:
            raise SettingsError(f"{text}: {key} is given twice; give it once")
        home[key] = value
    return settings | ({"columns": columns} if columns else {})


def merge_repeated(texts: Iterable[str]) -> list[Source]:
    """Return the sources of texts, of which several may say something of the same source.

    Raises:
        InputError: a TOML file cannot be read or says something else.
        SettingsError: a setting is unknown, illegal or given twice.
    """
    sources: list[Source] = []
    for source in (source for text in texts for source in parse_source(text)):
        at = next((i for i, other in enumerate(sources) if str(other.rows) == str(source.rows)), None)
        if at is None or not (sources[at].settings or source.settings):
            sources.append(source)
            continue
        before, more = sources[at].settings, source.settings
        if before.keys() & more.keys() - {"columns"} or before.get("columns", {}).keys() & more.get("columns", {}):
            sources.append(source)  # another split of the same place
            continue
        columns = {**before.get("columns", {}), **more.get("columns", {})}
        sources[at] = replace(sources[at], **{**before, **more, **({"columns": columns} if columns else {})})
    return sources
