"""Values of options that need no conversion, taken without importing pydantic, as typer would."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer._coercion import build_runtime_param
from typer._param_types import coerce_cli_path


class PlainValues:
    """Stands where typer keeps what converts the values of one parameter.

    Most options of a command are not given, or given as text that is taken as it is. Whatever else
    comes, typer converts it: pydantic takes longer to import than 1,000 rows to read.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value that the command gets.

        Raises:
            BadParameter: as typer does.
        """
        kind, info = param.type_descriptor.annotation, param.type_descriptor.parameter_info
        is_list = param.multiple or param.nargs == -1
        if value is None:
            return () if is_list else None
        if not is_list and info.parser is None and _is_plain(value, kind, info):
            if kind is Path:
                return coerce_cli_path(Path(value), info, path_type=info.path_type or Path, param=param, ctx=ctx)
            return value
        return build_runtime_param(param.type_descriptor).coerce(value, param=param, ctx=ctx)


def take_plain_values(param: Any) -> None:
    """Let a parameter take plain values as they are."""
    param._runtime_param = PlainValues()


def _is_plain(value: Any, kind: Any, info: Any) -> bool:
    """Tell whether a value is of its kind already, or is the text of a path."""
    if kind is Path:
        return isinstance(value, str)
    if get_origin(kind) is Literal:
        return type(value) is str and value in get_args(kind)
    if type(value) is not kind:
        return False
    if kind in (int, float):
        return (info.min is None or value >= info.min) and (info.max is None or value <= info.max)
    return kind in (str, bool) or isinstance(value, Enum)
