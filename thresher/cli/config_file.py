"""Configuration files of commands: options by name, flat or in a table for each command.

model = "Qwen/Qwen2.5-0.5B"     # for every command that has this option

[train]
learning_rate = 1e-4

[curate.clean]
rules = ["exact-duplicates", "contamination"]
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import write_atomic
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.places import show_place
from thresher.artifacts.remote.result import upload_files
from thresher.errors import InputError, MissingExtraError, describe_os_error, did_you_mean

SUFFIXES = (".toml", ".yaml", ".yml", ".json")
NAME = "config.toml"
Values = dict[str, Any]


def read_config(path: str, command: str, commands: Collection[str]) -> tuple[Values, Values, list[str]]:
    """Read the options of one command from a configuration file.

    Args:
        path: of the file: TOML, YAML or JSON.
        command: its full name, as `train` or `curate clean`.
        commands: full names of all commands.

    Returns:
        The options in the command's own table, those for all commands, and the names of the
        commands that have a table.

    Raises:
        InputError: the file cannot be read, or has a table of no command.
    """
    content = _parse(path)
    own: Values = {}
    common: Values = {}
    tables: list[str] = []
    groups = {name.partition(" ")[0] for name in commands if " " in name}
    for key, value in content.items():
        if not isinstance(value, Mapping):
            common[key] = value
        elif key in groups:
            for verb, inner in value.items():
                name = f"{key} {verb}"
                if name not in commands or not isinstance(inner, Mapping):
                    verbs = [each.partition(" ")[2] for each in commands if each.startswith(f"{key} ")]
                    raise InputError(
                        f"{path}: [{key}] must hold tables of its commands ({', '.join(verbs)}), found '{verb}'"
                        f"{did_you_mean(verb, verbs)}"
                    )
                tables.append(name)
                own |= inner if name == command else {}
        elif key in commands:
            tables.append(key)
            own |= value if key == command else {}
        else:
            common[key] = value
    return own, common, tables


def _parse(path: str) -> Values:
    file = Path(expand_path(path))
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"--config: must be a file that ends in {', '.join(SUFFIXES)}, got '{path}'; "
            f"the configuration of a Hub data set is --hub-config"
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = describe_os_error(error) if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"{path}: must be a readable configuration file, found '{why}'; fix --config") from None
    content = _parse_text(text, file.suffix.lower(), path)
    if content is None:
        content = {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: must hold options as NAME and VALUE, found a {type(content).__name__}")
    return content


def _parse_text(text: str, suffix: str, path: str) -> Any:
    try:
        if suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
        if suffix == ".json":
            return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: must be valid {suffix[1:].upper()}, found an error: {error}") from None
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError("pyyaml", f"reading {path}", "hub") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        sentence, where = " ".join(str(error).split()), ""
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            sentence = " ".join(str(error.problem).split())
            where = f" (at line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
        raise InputError(f"{path}: must be valid YAML, found an error: {sentence}{where}") from None


def to_flag(name: str, value: Any, where: str) -> bool:
    """Return the value of a flag.

    Raises:
        InputError: it is neither true nor false.
    """
    known = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise InputError(f"{where}: {name}: must be true or false, got {value!r}")


def to_text(name: str, value: Any, where: str) -> str | None:
    """Return a value as it would stand on the command line: lists and tables with commas.

    Raises:
        InputError: it is a date, or a list of lists.
    """
    if value is None or isinstance(value, str):
        return os.path.expanduser(value) if isinstance(value, str) else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return ",".join(str(to_text(name, each, where)) for each in value)
    if isinstance(value, Mapping):
        return ",".join(_list_pairs(name, value, where))
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise InputError(f"{where}: {name}: must be text, a number, true or false, or a list of them, got {value!r}")


def to_texts(name: str, value: Any, where: str) -> list[str] | None:
    """Return the values of an option that may be given several times."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return _list_pairs(name, value, where)
    return [str(to_text(name, each, where)) for each in (value if isinstance(value, list) else [value])]


def _list_pairs(name: str, table: Mapping[str, Any], where: str, before: str = "") -> list[str]:
    """Return ["near-duplicates.threshold=0.8"] from {"near-duplicates": {"threshold": 0.8}}."""
    pairs = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            pairs += _list_pairs(name, value, where, f"{before}{key}.")
        else:
            pairs.append(f"{before}{key}={to_text(name, value, where)}")
    return pairs


def write_config(out: Path, command: str, values: Mapping[str, Any]) -> None:
    """Write what a command was told, defaults included, beside its result.

    Args:
        out: folder or file of the result; nothing is written where there is none.
        command: name of the command.
        values: of its parameters; those that are None have no line.
    """
    out = Path(expand_path(out))
    path = out / NAME if out.is_dir() else out.with_name(f"{out.name}.{NAME}")
    if not out.exists():
        return
    values = {name: show_place(value) if name == "out" else value for name, value in values.items()}
    lines = [f"# Options of 'thresher {command}'; repeat the run with --config {NAME}."]
    lines += [f"{name} = {_to_toml(value)}" for name, value in values.items() if value not in (None, [], ())]
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    upload_files(path.parent, [path.name])


def _to_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_to_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
