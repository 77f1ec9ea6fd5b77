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
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from thresher.curation.curate import build_rules
from thresher.curation.rule import Rule
from thresher.curation.rule import create as create_rule
from thresher.dataset.schema import SCHEMA_NAMES, build_mapped_schema
from thresher.errors import SettingsError, ThresherError, did_you_mean
from thresher.jobs.settings import JobSettings, RowSettings, Select, Step
from thresher.models.encoders.encoder import EMBEDDED
from thresher.selectors import Selector
from thresher.selectors import create as create_selector
from thresher.subset.budget import Budget, parse_budget

MAX_BYTES = 4 << 20  # a job file is written by hand
MAX_LINE = 300  # characters of a line in which a header or a key is looked for: the search is not linear in them
_HEADER = re.compile(r"(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"([A-Za-z0-9_\-.\"' ]+)=")
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
KeyPath = tuple[str | int, ...]
Part = TypeVar("Part", bound=BaseModel)


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
    def output_folder(self) -> Path:
        """Where snapshots go."""
        return self.resolve_path(self.settings.output.folder)

    def resolve_path(self, named: str) -> Path:
        """Return where a path in the file is."""
        return self.base / os.path.expanduser(named)  # leaves "~nobody" as it is, where Path.expanduser raises

    def resolve_pattern(self, named: str) -> str:
        """Return where a path or a pattern in the file is; the name of the job's own folder is no pattern."""
        named = os.path.expanduser(named)
        return (
            os.path.join(glob.escape(str(self.base)), named) if glob.has_magic(named) else str(self.resolve_path(named))
        )

    def resolve_model(self, named: str | None) -> str | None:
        """Return a model as features take it: its place where it is a folder or a file, else its name."""
        if named is None or named in EMBEDDED:
            return named
        place = self.resolve_path(named)
        return str(place) if place.exists() else named

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


def _checked(path: Path, content: dict[str, Any], lines: dict[KeyPath, int]) -> Job:
    settings = None
    problems: list[str] = []
    try:
        settings = JobSettings.model_validate(content)
    except ValidationError as error:
        problems += [_problem(one, lines) for one in error.errors(include_url=False)]
    except RecursionError:
        raise SettingsError(f"{path}: the job file is nested too deeply; it is no job file") from None
    built = _built(_parts(content), lines, problems)
    if settings is None or built is None or problems:
        raise _problems(path, problems)
    report = frozenset(step.rule for step in settings.steps if step.report)
    return Job(path=path, settings=settings, report=report, **built._asdict())


class _Parts(NamedTuple):
    """What of a job file names something that is looked up beyond it; None where that part has problems of its own."""

    steps: list[Step | None]
    select: Select | None
    reading: RowSettings | None
    names: list[str]  # of the sources
    has_eval: bool


class _Built(NamedTuple):
    rules: tuple[Rule, ...]
    selector: Selector
    budget: Budget | None


def _parts(content: dict[str, Any]) -> _Parts:
    """Return the parts of a file that may have problems elsewhere: all problems are told at once."""
    steps, sources = (content.get(key) for key in ("steps", "sources"))
    named = [one.get("name") for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []
    return _Parts(
        steps=[_valid(Step, one) for one in steps] if isinstance(steps, list) else [],
        select=_valid(Select, content.get("select", {})),
        reading=_valid(RowSettings, content.get("rows", {})),
        names=[name for name in named if isinstance(name, str)],
        has_eval=bool(content.get("eval")),
    )


def _valid(part: type[Part], content: Any) -> Part | None:
    try:
        return part.model_validate(content)
    except ValidationError:
        return None  # its problems are known


def _built(parts: _Parts, lines: dict[KeyPath, int], problems: list[str]) -> _Built | None:
    """Build rules, selector and budget, and note every problem that only that shows."""
    rules = _rules(parts, lines, problems)
    repeated = sorted({name for name in parts.names if parts.names.count(name) > 1})
    problems += [f"sources: each name must be used once, found '{name}' twice" for name in repeated]
    reading, select = parts.reading, parts.select
    if reading is not None:
        _tried(lambda: _check_columns(reading), lines, ("rows",), problems)
    if select is None:
        return None
    selector = _tried(lambda: create_selector(select.method, select.settings), lines, ("select",), problems)
    given, budget = select.budget, None
    if given is not None:
        budget = _tried(lambda: parse_budget(given, method=select.method), lines, ("select", "budget"), problems)
    return None if rules is None or selector is None else _Built(rules, selector, budget)


def _rules(parts: _Parts, lines: dict[KeyPath, int], problems: list[str]) -> tuple[Rule, ...] | None:
    built = [
        _tried(lambda step=step: create_rule(step.rule, step.settings), lines, ("steps", number), problems)
        for number, step in enumerate(parts.steps)
        if step is not None
    ]
    rules = [rule for rule in built if rule is not None]
    if len(rules) < len(parts.steps):
        return None
    if not rules and not parts.has_eval:
        return ()
    chosen: tuple[Rule, ...] | None = _tried(
        lambda: build_rules(rules, None, has_eval=parts.has_eval), lines, ("steps",), problems
    )
    return chosen


def _check_columns(reading: RowSettings) -> None:
    """Refuse a schema and roles that there are not, before any row is read.

    Raises:
        SettingsError: there are no such.
    """
    if reading.columns is not None and reading.schema_name is not None:
        raise SettingsError("rows: schema and columns exclude each other, found both; give one of them")
    if reading.columns is not None:
        build_mapped_schema(reading.columns)
    known = SCHEMA_NAMES[:-1]  # the last one is that of columns
    if reading.schema_name is not None and reading.schema_name not in known:
        raise SettingsError(
            f"rows.schema: must be one of {', '.join(known)}, got '{reading.schema_name}'"
            f"{did_you_mean(reading.schema_name, known)}"
        )


def _tried(make: Any, lines: dict[KeyPath, int], place: KeyPath, problems: list[str]) -> Any:
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


def _problem(error: ErrorDetails, lines: dict[KeyPath, int]) -> str:
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


def _without_branches(place: Sequence[str | int]) -> KeyPath:
    """Return a place without the names that pydantic adds for the branches of a union."""
    keys = tuple(place)
    if keys[:2] == ("select", "budget"):
        return keys[:2]
    return keys


def _spelled(place: KeyPath) -> str:
    """Return ("sources", 0, "files") as "sources.1.files": the first of a list is 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in place)


def _keys_at(place: KeyPath) -> list[str]:
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


def _at(lines: dict[KeyPath, int], place: KeyPath) -> str:
    """Return "line 7: " for a place, or for the nearest section around it that has a line."""
    for end in range(len(place), 0, -1):
        if place[:end] in lines:
            return f"line {lines[place[:end]]}: "
    return ""


def _lines(text: str) -> dict[KeyPath, int]:
    """Return where each section and key stands, as well as it can be told without a parser of our own."""
    found: dict[KeyPath, int] = {}
    counts: dict[str, int] = {}
    section: KeyPath = ()
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


def _indexed(names: tuple[str, ...], counts: dict[str, int], *, is_list: bool) -> KeyPath:
    """Return a header's place, with the number of the table for tables in a list."""
    if is_list:
        name = ".".join(names)
        counts[name] = counts.get(name, -1) + 1
        return (*names, counts[name])
    if names[0] in counts:
        return (names[0], counts[names[0]], *names[1:])
    return names
