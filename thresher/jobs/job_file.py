"""Job files: TOML, of which every problem is told at once, with its line and the nearest key."""

from __future__ import annotations

import glob
import os
import re
import tomllib
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from thresher.artifacts.local_path import refuse_address
from thresher.artifacts.remote.address import Address, is_address, parse_address
from thresher.artifacts.remote.places import OUT, find_place
from thresher.curation.curate import build_rules
from thresher.curation.rule import Rule
from thresher.curation.rule import create as create_rule
from thresher.dataset.schema import SCHEMA_NAMES, build_mapped_schema
from thresher.errors import ProblemsError, SettingsError, ThresherError, did_you_mean
from thresher.jobs.settings import JobSettings, RowSettings, Select, Source, Step
from thresher.models.encoders.encoder import EMBEDDED
from thresher.selectors import Selector
from thresher.selectors import create as create_selector
from thresher.subset.budget import Budget, parse_budget

MAX_BYTES = 4 << 20  # a job file is written by hand
MAX_LINE = 300  # characters in which a header or a key is looked for: the search is not linear
_HEADER = re.compile(r"(\[\[?)([^\[\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"([A-Za-z0-9_\-.\"' ]+)=")
_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
KeyPath = tuple[str | int, ...]
T = TypeVar("T")
Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A checked job.

    Attributes:
        path: of the file.
        settings: as the file says.
        rules: of the steps, with contamination first when there are rows to evaluate on.
        report: names of rules that drop nothing.
        selector: of `[select]`.
        budget: of the new rows, or None.
    """

    path: Path
    settings: JobSettings
    rules: tuple[Rule, ...]
    report: frozenset[str]
    selector: Selector
    budget: Budget | None

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.settings.name or _NAME.sub("-", self.path.stem).strip("-.") or "job"

    @property
    def base(self) -> Path:
        """The folder from which paths in the file start."""
        return self.path.parent

    @property
    def output_folder(self) -> Path:
        """Where snapshots go, or are made where they go to an address."""
        address = self.output_address
        return self.resolve_path(self.settings.output.folder) if address is None else find_place(address, OUT)

    @property
    def output_address(self) -> Address | None:
        """The address that snapshots go to; None where it is a path."""
        folder = self.settings.output.folder
        return parse_address(folder) if is_address(folder) else None

    def resolve_path(self, named: str) -> Path:
        """Return a path in the file from the folder of the file."""
        return self.base / os.path.expanduser(named)  # Path.expanduser raises for "~nobody"

    def resolve_pattern(self, named: str) -> str:
        """Return the same of a path or a pattern, in which the job's own folder is no pattern."""
        named = os.path.expanduser(named)
        return (
            os.path.join(glob.escape(str(self.base)), named) if glob.has_magic(named) else str(self.resolve_path(named))
        )

    def resolve_model(self, named: str | None) -> str | None:
        """Return the path of a model where it is a folder or a file, else its name."""
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
    refuse_address(path)
    path = Path(path).absolute()
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"{path}: the job file must be readable, got '{reason}'; check the path") from None
    if len(raw) > MAX_BYTES:
        raise SettingsError(f"{path}: a job file must have at most {MAX_BYTES} bytes, found more; it is no job file")
    try:
        text = raw.decode()
        content = tomllib.loads(text)
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: a job file must be UTF-8, found other bytes; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: a job file must be TOML, found '{error}'; fix it") from None
    return _build_job(path, content, _Problems(text))


class _Problems:
    """Collects every problem of a job file, each with its line."""

    def __init__(self, text: str) -> None:
        self.messages: list[str] = []
        self._lines = _index_lines(text)

    def add(self, place: KeyPath, problem: str) -> None:
        """Note a problem at a place, or in the nearest section around it that has a line."""
        around = (place[:end] for end in range(len(place), 0, -1))
        line = next((self._lines[part] for part in around if part in self._lines), None)
        self.messages.append(problem if line is None else f"line {line}: {problem}")

    def build(self, place: KeyPath, function: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
        """Return what a function builds, or None and note its problem."""
        try:
            return function(*arguments, **options)
        except ThresherError as error:
            self.add(place, str(error))
        except (TypeError, ValueError, OverflowError) as error:  # a plug-in's own check
            self.add(place, f"{_format_key(place)}: a setting has an illegal value ({error})")
        return None

    def to_error(self, path: Path) -> SettingsError:
        """Return all problems as one error."""
        # No control character of a key may pass for a line of the log.
        lines = [_escape(message) for message in self.messages]
        if len(lines) == 1:
            return SettingsError(f"{path}: {lines[0]}")
        return ProblemsError("\n  ".join([f"{_escape(str(path))}: {len(lines)} problems:", *lines]))


def _escape(text: str) -> str:
    """Return a text in which no control character of a key passes for a line of the log."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _build_job(path: Path, content: dict[str, Any], problems: _Problems) -> Job:
    """Check the file as a whole, and build what it names, also where other parts have problems.

    Raises:
        SettingsError: with all problems.
    """
    settings = None
    try:
        settings = JobSettings.model_validate(content)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            place = _drop_branches(one["loc"])
            problems.add(place, _describe_problem(one, place))
    except RecursionError:
        raise SettingsError(f"{path}: the job file is nested too deeply; it is no job file") from None
    rules = _build_steps(content, problems)
    sources = content.get("sources")
    _check_sources(sources if isinstance(sources, list) else [], problems)
    rows = _validate(RowSettings, content.get("rows", {}))
    if rows is not None:
        problems.build(("rows",), _check_columns, rows, "rows")
    select, selector, budget = _validate(Select, content.get("select", {})), None, None
    if select is not None:
        selector = problems.build(("select",), create_selector, select.method, select.settings)
    if select is not None and select.budget is not None:
        budget = problems.build(("select", "budget"), parse_budget, select.budget, method=select.method)
    if problems.messages or settings is None or rules is None or selector is None:
        raise problems.to_error(path)
    report = frozenset(step.rule for step in settings.steps if step.report)
    return Job(path=path, settings=settings, rules=rules, report=report, selector=selector, budget=budget)


def _check_sources(sources: list[Any], problems: _Problems) -> None:
    """Note names that are used twice, and schemas and roles that there are not."""
    names = [one.get("name") for one in sources if isinstance(one, dict)]
    for name in sorted({name for name in names if isinstance(name, str) and names.count(name) > 1}):
        problems.add((), f"sources: each name must be used once, found '{name}' twice")
    for number, one in enumerate(sources):
        if (source := _validate(Source, one)) is not None:
            problems.build(("sources", number), _check_columns, source, f"sources.{number + 1}")


def _build_steps(content: dict[str, Any], problems: _Problems) -> tuple[Rule, ...] | None:
    """Return the rules in order, or None where one has a problem."""
    entries, has_eval = content.get("steps"), bool(content.get("eval"))
    steps = [_validate(Step, one) for one in entries] if isinstance(entries, list) else []
    rules = [
        problems.build(("steps", number), create_rule, step.rule, step.settings)
        for number, step in enumerate(steps)
        if step is not None
    ]
    built = [rule for rule in rules if rule is not None]
    if len(built) < len(steps):
        return None
    return problems.build(("steps",), build_rules, built, None, has_eval=has_eval) if built or has_eval else ()


def _validate(section: type[Part], content: Any) -> Part | None:
    try:
        return section.model_validate(content)
    except ValidationError:
        return None  # its problems are known


def _check_columns(reading: RowSettings | Source, where: str) -> None:
    """Refuse a schema and roles that there are not, before any row is read.

    Raises:
        SettingsError: there are no such.
    """
    if reading.columns is not None and reading.schema_name is not None:
        raise SettingsError(f"{where}: schema and columns exclude each other, found both; give one of them")
    if reading.columns is not None:
        build_mapped_schema(reading.columns)
    known = SCHEMA_NAMES[:-1]  # the last one is that of columns
    if reading.schema_name is not None and reading.schema_name not in known:
        raise SettingsError(
            f"{where}.schema: must be one of {', '.join(known)}, got '{reading.schema_name}'"
            f"{did_you_mean(reading.schema_name, known)}"
        )


def _describe_problem(error: ErrorDetails, place: KeyPath) -> str:
    """Return one finding of pydantic as a sentence."""
    key = _format_key(place)
    if error["type"] == "extra_forbidden":
        section = f"[{_format_key(place[:-1])}]" if len(place) > 1 else "the file"
        return f"unknown key '{place[-1]}' in {section}{did_you_mean(str(place[-1]), _list_keys(place[:-1]))}"
    if error["type"] == "missing":
        return f"{key}: must be given, found none"
    message, value = error["msg"].removeprefix("Value error, "), error["input"]
    if error["type"] == "model_type":
        return f"{key}: must be a section or a table such as {{warn = 0.1}}, got {value!r:.200}"
    got = "" if isinstance(value, dict | list) else f", got {value!r:.200}"
    return f"{key}: {message[:1].lower()}{message[1:]}{got}"


def _drop_branches(place: Sequence[str | int]) -> KeyPath:
    """Return a place without the names that pydantic adds for the branches of a union."""
    keys = tuple(place)
    return keys[:2] if keys[:2] == ("select", "budget") else keys


def _format_key(place: KeyPath) -> str:
    """Return ("sources", 0, "files") as "sources.1.files": the first of a list is 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in place)


def _list_keys(place: KeyPath) -> list[str]:
    """Return the keys that the section at a place has."""
    model: Any = JobSettings
    for part in place:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        model = None if field is None else _find_model(field.annotation)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _find_model(annotation: Any) -> Any:
    """Return the section that a type is or holds, or None."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    models = (_find_model(part) for part in typing.get_args(annotation))
    return next((model for model in models if model is not None), None)


def _index_lines(text: str) -> dict[KeyPath, int]:
    """Return the line of each section and key, as far as a search without a parser tells."""
    lines: dict[KeyPath, int] = {}
    counts: dict[str, int] = {}
    section: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()[:MAX_LINE]
        if header := _HEADER.fullmatch(line):
            section = _index_header(_split_key(header[2]), counts, is_list=header[1] == "[[")
            lines.setdefault(section, number)
            lines.setdefault(section[:1], number)
        elif key := _KEY.match(line):
            lines.setdefault((*section, *_split_key(key[1])), number)
    return lines


def _split_key(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


def _index_header(names: tuple[str, ...], counts: dict[str, int], *, is_list: bool) -> KeyPath:
    """Return a header's place, with the number of the table for tables in a list."""
    if is_list:
        name = ".".join(names)
        counts[name] = counts.get(name, -1) + 1
        return (*names, counts[name])
    if names[0] in counts:
        return (names[0], counts[names[0]], *names[1:])
    return names
