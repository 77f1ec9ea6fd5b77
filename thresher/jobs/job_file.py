"""Job files: TOML checked whole, with every problem at once, its line, and the nearest known key."""

from __future__ import annotations

import glob
import os
import re
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from thresher.budget import Budget, parse_budget
from thresher.curating import chosen_rules
from thresher.curation.rule import Rule
from thresher.curation.rule import create as create_rule
from thresher.errors import SettingsError, ThresherError, did_you_mean
from thresher.jobs.settings import JobSettings
from thresher.selectors import Selector
from thresher.selectors import create as create_selector

MAX_BYTES = 4 << 20  # a job file is written by hand
MAX_LINE = 300  # characters of a line in which a header or a key is looked for: the search is not linear in them
_HEADER = re.compile(r"(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"([A-Za-z0-9_\-.\"' ]+)=")
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
Place = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, checked.

    Attributes:
        path: of the file.
        settings: as the file says.
        rules: of the steps, built, with contamination first when there are rows to evaluate on.
        report: names of rules that drop nothing.
        selector: built.
        budget: parsed, or None.
    """

    path: Path
    settings: JobSettings
    rules: tuple[Rule, ...]
    report: frozenset[str]
    selector: Selector
    budget: Budget | None

    @property
    def name(self) -> str:
        """What the job is called."""
        return self.settings.name or _NAME.sub("-", self.path.stem).strip("-.") or "job"

    @property
    def base(self) -> Path:
        """The folder from which paths in the file start."""
        return self.path.parent

    @property
    def folder(self) -> Path:
        """Where snapshots go."""
        return self.place(self.settings.output.folder)

    def place(self, named: str) -> Path:
        """Return where a path in the file is."""
        return self.base / os.path.expanduser(named)  # leaves "~nobody" as it is, where Path.expanduser raises

    def pattern(self, named: str) -> str:
        """Return where a path or a pattern in the file is; the name of the job's own folder is no pattern."""
        named = os.path.expanduser(named)
        return os.path.join(glob.escape(str(self.base)), named) if glob.has_magic(named) else str(self.place(named))

    def source_name(self, number: int) -> str:
        """Return the name of a source."""
        source = self.settings.sources[number]
        kind = next(kind for kind in ("files", "hub", "sql") if getattr(source, kind) is not None)
        return source.name or f"{kind}-{number + 1}"


def read_job(path: str | Path) -> Job:
    """Read and check a job file; no source is looked at.

    Raises:
        SettingsError: it cannot be read, is not TOML, or has problems: all of them, one per line.
    """
    path = Path(path).absolute()
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"{path}: the job file must be readable, got '{what}'; check the path") from None
    if len(raw) > MAX_BYTES:
        raise SettingsError(f"{path}: a job file must have at most {MAX_BYTES} bytes, found more; it is no job file")
    try:
        text = raw.decode()
        content = tomllib.loads(text)
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: a job file must be UTF-8, found other bytes; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: a job file must be TOML, found '{error}'; mend it") from None
    return _checked(path, content, _lines(text))


def _checked(path: Path, content: dict[str, Any], lines: dict[Place, int]) -> Job:
    try:
        settings = JobSettings.model_validate(content)
    except ValidationError as error:
        found = [_problem(one, lines) for one in error.errors(include_url=False)]
        raise _problems(path, found) from None
    except RecursionError:
        raise SettingsError(f"{path}: the job file is nested too deeply; it is no job file") from None
    problems: list[str] = []
    rules = _rules(settings, lines, problems)
    selector = _tried(
        lambda: create_selector(settings.select.method, settings.select.settings), lines, ("select",), problems
    )
    given = settings.select.budget
    budget = None
    if given is not None:
        budget = _tried(
            lambda: parse_budget(given, method=settings.select.method), lines, ("select", "budget"), problems
        )
    names = [source.name for source in settings.sources if source.name is not None]
    repeated = sorted({name for name in names if names.count(name) > 1})
    problems += [f"sources: each name must be used once, found '{name}' twice" for name in repeated]
    if problems or rules is None or selector is None:
        raise _problems(path, problems)
    report = frozenset(step.rule for step in settings.steps if step.report)
    return Job(path=path, settings=settings, rules=rules, report=report, selector=selector, budget=budget)


def _rules(settings: JobSettings, lines: dict[Place, int], problems: list[str]) -> tuple[Rule, ...] | None:
    built = [
        _tried(lambda step=step: create_rule(step.rule, step.settings), lines, ("steps", number), problems)
        for number, step in enumerate(settings.steps)
    ]
    rules = [rule for rule in built if rule is not None]
    if len(rules) < len(built):
        return None
    if not rules and not settings.eval:
        return ()
    chosen: tuple[Rule, ...] | None = _tried(
        lambda: chosen_rules(rules, None, has_eval=bool(settings.eval)), lines, ("steps",), problems
    )
    return chosen


def _tried(make: Any, lines: dict[Place, int], place: Place, problems: list[str]) -> Any:
    """Return what `make` returns, or None and note the problem."""
    try:
        return make()
    except ThresherError as error:
        problems.append(_at(lines, place) + str(error))
    except (TypeError, ValueError, OverflowError) as error:  # a plug-in's own check of its settings
        problems.append(f"{_at(lines, place)}{_spelled(place)}: a setting has an illegal value ({error})")
    return None


def _problems(path: Path, found: Sequence[str]) -> SettingsError:
    if len(found) == 1:
        return SettingsError(f"{path}: {_on_one_line(found[0])}")
    listed = "".join(f"\n  {_on_one_line(problem)}" for problem in found)
    return SettingsError(f"{path}: {len(found)} problems:{listed}")


def _on_one_line(text: str) -> str:
    """Return a text in which no line feed and no other control character of a key can pass for a line of the log."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _problem(error: ErrorDetails, lines: dict[Place, int]) -> str:
    """Return one finding of pydantic as a sentence."""
    place = _without_branches(error["loc"])
    where = _at(lines, place)
    if error["type"] == "extra_forbidden":
        known = _keys_at(place[:-1])
        section = f"[{_spelled(place[:-1])}]" if len(place) > 1 else "the file"
        return f"{where}unknown key '{place[-1]}' in {section}{did_you_mean(str(place[-1]), known)}"
    if error["type"] == "missing":
        return f"{where}{_spelled(place)}: must be given, found none"
    if error["type"] == "model_type":
        got = f"{error['input']!r:.200}"
        return f"{where}{_spelled(place)}: must be a section or a table such as {{warn = 0.1}}, got {got}"
    what = error["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    value = error["input"]
    got = "" if isinstance(value, dict | list) else f", got {value!r:.200}"
    return f"{where}{_spelled(place)}: {what}{got}"


def _without_branches(place: Sequence[str | int]) -> Place:
    """Return a place without the names that pydantic adds for the branches of a union."""
    keys = tuple(place)
    if keys[:2] == ("select", "budget"):
        return keys[:2]
    return keys


def _spelled(place: Place) -> str:
    """Return ("sources", 0, "files") as "sources.1.files": the first of a list is 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in place)


def _keys_at(place: Place) -> list[str]:
    """Return the keys that the model at a place has."""
    model: Any = JobSettings
    for part in place:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        model = _model_in(field.annotation)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part)) is not None), None)


def _at(lines: dict[Place, int], place: Place) -> str:
    """Return "line 7: " for a place, or for the nearest section around it that has a line."""
    for end in range(len(place), 0, -1):
        if place[:end] in lines:
            return f"line {lines[place[:end]]}: "
    return ""


def _lines(text: str) -> dict[Place, int]:
    """Return where each section and key stands, as well as it can be told without a parser of our own."""
    found: dict[Place, int] = {}
    counts: dict[str, int] = {}
    section: Place = ()
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()[:MAX_LINE]
        if header := _HEADER.fullmatch(line):
            names = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            section = _indexed(names, counts, is_list=header[1] == "[[")
            found.setdefault(section, number)
            found.setdefault(section[:1], number)
        elif key := _KEY.match(line):
            names = tuple(part.strip().strip("\"'") for part in key[1].split("."))
            found.setdefault((*section, *names), number)
    return found


def _indexed(names: tuple[str, ...], counts: dict[str, int], *, is_list: bool) -> Place:
    """Return a header's place, with the number of the table for tables in a list."""
    if is_list:
        name = ".".join(names)
        counts[name] = counts.get(name, -1) + 1
        return (*names, counts[name])
    if names[0] in counts:
        return (names[0], counts[names[0]], *names[1:])
    return names
