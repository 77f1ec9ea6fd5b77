"""Settings said once: a field has its default, its description and its bounds in one place.

    @dataclass(frozen=True, kw_only=True)
    class Herding(Settings):
        where = "herding"
        n_clusters: int = option(64, "Clusters of the embeddings.", ge=1)
        kernel: Literal["dense", "sparse"] = "dense"

`Settings` and `check_settings` check the fields' types and bounds, `build_settings` converts text
to them, and the command line makes its options of them. pydantic does the checking; the sentences
are ours.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from thresher.errors import InputError, SettingsError, did_you_mean

OPTION = "option"  # key of a field's metadata
_NEXT_PAIR = re.compile(r",\s*(?=[A-Za-z][\w.-]*=(?!=))")  # the comma before another NAME=VALUE
F = TypeVar("F", bound=Callable[..., Any])


class Option(NamedTuple):
    """What a field says of itself: help, bounds, and its place on the command line."""

    help: str = ""
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    flag: str | None = None
    panel: str | None = None
    is_repeatable: bool = False
    parse: Callable[[Any], Any] | None = None


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",  # noqa: A002 - the word of every command line
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    flag: str | None = None,
    panel: str | None = None,
    is_repeatable: bool = False,
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """Return a dataclass field with its one description.

    Args:
        default: of the field; left out where a value must be given.
        help: one sentence, which the command line and the documentation show.
        gt: the value must be above this.
        ge: the value must be at least this; of a text, 1 says that it must not be empty.
        lt: the value must be below this.
        le: the value must be at most this; infinite for a number that may be infinite.
        flag: names on the command line, with spaces; default: the field's name with dashes; "": not
            an option of the command line.
        panel: heading of the command's help under which the option stands.
        is_repeatable: a list is given on the command line one element at a time, not with commas.
        parse: makes the value of the command line's text, or of its list of texts.
    """
    about = Option(help, gt, ge, lt, le, flag, panel, is_repeatable, parse)
    return dataclasses.field(default=default, metadata={OPTION: about})


def get_option(field: dataclasses.Field[Any]) -> Option:
    """Return what a field says of itself."""
    about: Option = field.metadata.get(OPTION, Option())
    return about


@lru_cache(maxsize=256)
def get_field_types(cls: type) -> Mapping[str, Any]:
    """Return the types of a settings class by field, resolved.

    Raises:
        SettingsError: an annotation names a type that is not imported where the class is defined.
    """
    try:
        types_by_name = get_type_hints(cls)
    except NameError as error:
        raise SettingsError(
            f"{cls.__module__}.{cls.__name__}: the type of a setting must be importable: {error}"
        ) from None
    return {field.name: types_by_name[field.name] for field in dataclasses.fields(cls)}


def check_settings(settings: Any, name: str, problems: Sequence[str] = ()) -> None:
    """Check every field against its type and bounds, and report all problems together.

    Args:
        settings: instance of a dataclass; only a whole number counts as int, true and false do not.
        name: whose settings these are, as messages begin.
        problems: further ones, as of fields that exclude each other, to be told with the others.

    Raises:
        SettingsError: at least one field has an illegal value.
    """
    sentences = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if not _is_valid(type(settings), field.name, value):
            sentences.append(f"{field.name} {_describe_problem(type(settings), field, value)}")
    sentences += problems
    if sentences:
        raise SettingsError(f"{name}: " + "; ".join(sentences))


class Settings:
    """Base of frozen dataclasses whose fields are settings: all of them are checked on creation.

    Attributes:
        where: whose settings these are, as messages begin.
    """

    where: ClassVar[str]

    def __post_init__(self) -> None:
        """Check types and bounds.

        Raises:
            SettingsError: a value is illegal.
        """
        check_settings(self, self.where)


def build_settings(cls: type, name: str, values: Mapping[str, Any] | None) -> Any:
    """Build a settings object from values by field name.

    Args:
        cls: a dataclass whose fields are the settings.
        name: whose settings these are, as messages begin.
        values: text is converted to the field's type, as from a command line; lists become tuples.

    Raises:
        SettingsError: a setting is unknown, missing, or has an illegal value.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    converted: dict[str, Any] = {}
    for key, value in (values or {}).items():
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise SettingsError(f"{name}: unknown setting '{key}'; it has: {known}{did_you_mean(key, fields)}")
        converted[key] = _convert(cls, name, fields[key], value)
    _check_complete(cls, name, converted)
    return cls(**converted)


def _convert(cls: type, name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    members = _members(get_field_types(cls)[field.name])
    if isinstance(value, str) and (str in members or Any in members):
        return value
    given, is_text, value = value, isinstance(value, str), _as_plain(value)
    if _is_plainly_valid(members, get_option(field), value):
        return value
    from pydantic import ValidationError

    if any(get_origin(member) is tuple for member in members):
        if isinstance(value, str) and value not in _choices(members):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = (value,)
    try:
        adapter = _adapter(cls, field.name)
        if isinstance(value, str):
            return adapter.validate_strings(value)
        return adapter.validate_python(value, strict=not is_text)
    except ValidationError:
        raise SettingsError(f"{name}: {field.name} {_describe_problem(cls, field, given)}") from None


def _as_plain(value: Any) -> Any:
    """Return numbers and arrays of numpy as Python's, and lists and ranges as tuples."""
    if type(value).__module__ == "numpy":
        value = value.tolist()
    return tuple(map(_as_plain, value)) if isinstance(value, list | tuple | range) else value


def _is_plainly_valid(members: Sequence[Any], about: Option, value: object) -> bool:
    """Tell whether a value is of the very type of a field, within its bounds.

    False says nothing: pydantic then judges. Its import and one validator a field would take as
    long as reading a thousand rows.
    """
    kind = type(value)
    if Any in members or value is None:
        return Any in members or types.NoneType in members
    if isinstance(value, str):
        words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
        return kind is str and (value in words or (str in members and len(value) >= (about.ge or 0)))
    if isinstance(value, int | float) and kind is not bool and kind in members:
        is_within = (about.gt is None or value > about.gt) and (about.lt is None or value < about.lt)
        is_within &= (about.ge is None or value >= about.ge) and (about.le is None or value <= about.le)
        return is_within and math.isfinite(value)
    if isinstance(value, tuple):
        lists = [_members(get_args(member)[0]) for member in members if get_origin(member) is tuple]
        return any(all(_is_plainly_valid(elements, about, each) for each in value) for elements in lists)
    return kind is bool and bool in members or dataclasses.is_dataclass(value) and kind in members


def _is_valid(cls: type, field: str, value: object) -> bool:
    about = get_option(next(each for each in dataclasses.fields(cls) if each.name == field))
    if _is_plainly_valid(_members(get_field_types(cls)[field]), about, value):
        return True
    from pydantic import ValidationError

    if type(value).__module__ == "numpy" and not getattr(value, "shape", ()):
        value = _as_plain(value)  # numpy's numbers are as good as Python's
    try:
        _adapter(cls, field).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=1024)
def _adapter(cls: type, name: str) -> Any:
    """Return pydantic's validator of a field: its type, with the bounds on the numbers in it."""
    from pydantic import ConfigDict, TypeAdapter

    about = get_option(next(field for field in dataclasses.fields(cls) if field.name == name))
    members = [_with_bounds(member, about) for member in _members(get_field_types(cls)[name])]
    kind: Any = Union[tuple(members)]  # noqa: UP007 - built while running
    is_settings = any(dataclasses.is_dataclass(member) for member in members)
    return TypeAdapter(kind, config=None if is_settings else ConfigDict(arbitrary_types_allowed=True))


def _with_bounds(member: Any, about: Option) -> Any:
    """Return a type with the bounds of its field: of a list, they hold for each element."""
    from pydantic import Field

    bounds = {key: getattr(about, key) for key in ("gt", "ge", "lt")} | {
        "le": None if about.le == math.inf else about.le
    }
    if member is int:
        return Annotated[int, Field(**bounds)]
    if member is float:
        return Annotated[float, Field(**bounds, allow_inf_nan=about.le == math.inf)]
    if member is str and about.ge is not None:
        return Annotated[str, Field(min_length=int(about.ge))]
    if get_origin(member) is tuple:
        elements = tuple(_with_bounds(element, about) for element in _members(get_args(member)[0]))
        return tuple[Union[elements], ...]  # type: ignore[valid-type]  # noqa: UP007 - built while running
    return member


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union; of any other type, the type."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _choices(members: Sequence[Any]) -> list[str]:
    return [str(word) for member in members if get_origin(member) is Literal for word in get_args(member)]


def _describe_problem(cls: type, field: dataclasses.Field[Any], value: object) -> str:
    """Return "must be ..., got ..." for a value that does not fit its field."""
    members, about = _members(get_field_types(cls)[field.name]), get_option(field)
    choices = _choices(members)
    kinds, hint = [], ""
    for member in members:
        if member in (int, float):
            kinds.append(_describe_number("a whole number" if member is int else "a number", about))
        elif member is bool:
            kinds.append("true or false")
        elif member is str:
            kinds.append("text" if about.ge is None else "text that is not empty")
        elif get_origin(member) is tuple:
            kinds.append(f"a list of {_describe_elements(_members(get_args(member)[0]), about)}")
            words = _choices(_members(get_args(member)[0]))
            wrong = [part.strip() for part in str(value).split(",") if part.strip() not in words] if words else []
            hint = did_you_mean(wrong[0], words) if wrong else ""
        elif get_origin(member) is not Literal and member is not type(None):
            kinds.append(getattr(member, "__name__", str(member)))
    if choices:
        quoted = ", ".join(f"'{word}'" for word in choices)
        kinds.append(f"one of {quoted}" if len(choices) > 1 else quoted)
    hint = hint or (did_you_mean(value, choices) if isinstance(value, str) else "")
    return f"must be {' or '.join(kinds)}, got {value!r}{hint}"


def _describe_elements(members: Sequence[Any], about: Option) -> str:
    texts = ["texts"] if str in members else [f"'{word}'" for word in _choices(members)]
    if float in members:
        return " or ".join([*texts, _describe_number("numbers", about)])
    if int in members:
        texts.append(_describe_number("whole numbers", about))
    return ", ".join(texts) if _choices(members) else " or ".join(texts)


def _describe_number(kind: str, about: Option) -> str:
    if about.ge is not None and about.le is not None and about.le != math.inf:
        return f"{kind} in {about.ge:g}..{about.le:g}"
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
    limits = [
        f"{word} {limit:g}" for key, word in words.items() if (limit := getattr(about, key)) not in (None, math.inf)
    ]
    return " ".join([kind, " and ".join(limits)]) if limits else kind


def document_options(*groups: type) -> Callable[[F], F]:
    """Return a decorator that shows the fields of settings as a function's own keyword arguments.

    The function takes them as `**options` and calls `split_options`. They go into its signature,
    and into its docstring after the last of its arguments, so that `help` and notebooks show them.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [entry for entry in signature.parameters.values() if entry.kind is not inspect.Parameter.VAR_KEYWORD]
        fields = [field for group in groups for field in dataclasses.fields(group)]
        added = [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_get_default(f)) for f in fields]
        function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        lines = [f"    {field.name}: {get_option(field).help}" for field in fields]
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options:", *lines, ""])
        return function

    return decorate


def _get_default(field: dataclasses.Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def split_options(name: str, options: Mapping[str, Any], *groups: type) -> list[Any]:
    """Return one settings object per class, built from a function's keyword arguments.

    Args:
        name: of the function, as messages begin.
        options: what it was given, by field name.
        groups: the settings classes; no two have a field of the same name.

    Raises:
        SettingsError: no class has a field of that name, or a value is illegal or missing.
    """
    homes = {field.name: group for group in groups for field in dataclasses.fields(group)}
    for key in options:
        if key not in homes:
            known = ", ".join(homes)
            raise SettingsError(f"{name}: unknown option '{key}'; it has: {known}{did_you_mean(key, homes)}")
    built = []
    for group in groups:
        own = {key: value for key, value in options.items() if homes[key] is group}
        _check_complete(group, name, own)
        built.append(group(**own))
    return built


def parse_pairs(pairs: Sequence[str], option: str = "--set", example: str = "easy_share=0.3") -> dict[str, str]:
    """Return {"easy_share": "0.3", ...} from the command line's ["easy_share=0.3", ...].

    Args:
        pairs: as they were given.
        option: that gave them, for messages.
        example: of a pair, for messages.

    Raises:
        InputError: a pair is not NAME=VALUE, or holds several.
    """
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise InputError(f"{option}: must be NAME=VALUE, got '{pair}'; for example {option} {example}")
        if _NEXT_PAIR.search(value):
            each = " ".join(f"{option} {one}" for one in _NEXT_PAIR.sub("\n", pair).split("\n"))
            raise InputError(f"{option}: must be one NAME=VALUE each time, got '{pair}'; give {each}")
        values[name.strip().replace("-", "_")] = value.strip()
    return values


def _check_complete(cls: type, name: str, values: Mapping[str, Any]) -> None:
    for field in dataclasses.fields(cls):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in values and not has_default:
            raise SettingsError(f"{name}: needs the setting '{field.name}', found none; give {field.name}=VALUE")
