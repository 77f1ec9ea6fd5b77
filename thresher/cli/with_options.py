"""Options of commands, made of the settings that they fill: each is described once, at its field.

    @with_options(ModelSettings, ReadSettings)
    def score(pool: Pool, models: ModelSettings, read: ReadSettings, seed: Seed = 0) -> None: ...

becomes a command with one option for each field of the two classes, in the place of the parameter
that has the class as its type; the command is called with the settings built and checked.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from thresher.validation import build_settings, get_field_types, get_option


def with_options(
    *groups: type, name: str | None = None, defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces parameters of settings classes by one option per field.

    Args:
        groups: dataclasses of `option` fields; a field without help gets no option.
        name: whose settings these are, as messages begin; default: the name of the command.
        defaults: by field, where the command has another default than the settings.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        by_parameter = {parameter: kind for parameter, kind in hints.items() if kind in groups}

        @functools.wraps(command)
        def run(**values: Any) -> None:
            for parameter, kind in by_parameter.items():
                own = {field.name: _take(values, field) for field in _fields(kind)}
                values[parameter] = build_settings(kind, name or command.__name__, own)
            command(**values)

        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name in by_parameter:
                parameters += _options(by_parameter[parameter.name], defaults or {})
            else:
                kind = inspect.Parameter.KEYWORD_ONLY
                parameters.append(parameter.replace(annotation=hints[parameter.name], kind=kind))
        # typer reads both; required parameters may follow others, as all are given by keyword
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _fields(group: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(group) if get_option(field).help and get_option(field).flag != ""]


def _take(values: dict[str, Any], field: dataclasses.Field[Any]) -> Any:
    """Return the value of an option; a list that was not given has the default."""
    value, parse = values.pop(field.name), get_option(field).parse
    if parse is not None and value is not None:
        return parse(value)
    is_list = get_option(field).is_repeatable or field.default == ()  # whose default is no text
    return field.default if value is None and is_list else value


def _options(group: type, defaults: Mapping[str, Any]) -> Iterator[inspect.Parameter]:
    """Yield one keyword parameter of a command per field of a settings class."""
    types = get_field_types(group)
    for field in _fields(group):
        about, kind = get_option(field), _get_option_type(types[field.name])
        if about.is_repeatable:
            kind = list[str if about.parse else get_args(types[field.name])[0]] | None  # type: ignore[misc]
        flags = (about.flag or f"--{field.name.replace('_', '-')}").split() if kind is bool or about.flag else []
        numbers = any(member in (int, float) for member in (kind, *get_args(kind)))
        info = typer.Option(
            *flags,
            help=_escape(f"{about.help} Repeatable." if about.is_repeatable else about.help),
            rich_help_panel=about.panel,
            min=about.ge if numbers else None,
            max=about.le if numbers else None,
        )
        default = defaults.get(field.name, field.default)
        if about.is_repeatable:
            default = None
        elif isinstance(default, tuple):
            default = ",".join(map(str, default)) or None
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
            annotation=Annotated[kind, info],
        )


def _escape(text: str) -> str:
    """Return help whose brackets are printed: the help page takes them for markup."""
    return text.replace("[", "\\[")


def _get_option_type(kind: Any) -> Any:
    """Return the type of an option; lists, and unions with words, are read as text."""
    members = [member for member in (get_args(kind) if _is_union(kind) else (kind,)) if member is not type(None)]
    if len(members) > 1 or members[0] is Any or get_origin(members[0]) in (tuple, Mapping):
        members = [str]
    single = members[0]
    return single | None if kind is Any or type(None) in get_args(kind) else single


def _is_union(kind: Any) -> bool:
    return get_origin(kind) is Union or type(kind).__name__ == "UnionType"
