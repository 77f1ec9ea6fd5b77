"""What every command has, whoever declares it: a configuration file, overrides, names of values.

    thresher train --config run.toml learning_rate=1e-4 --out adapter

A value on the command line is used before `KEY=VALUE`, that before the file, that before the
default. All three know the same names, because they are made of the same declarations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer import BadParameter
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from thresher.cli import config_file
from thresher.cli.addresses import resolve_value
from thresher.cli.plain_values import take_plain_values
from thresher.cli.spellings import find_name
from thresher.errors import InputError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])
HELP_NAMES = ["-h", "--help"]
_PANEL = "Configuration"
_PAIR = re.compile(r"([A-Za-z][\w.-]*)=(.*)", re.DOTALL)
_FLAG = re.compile(r"--([A-Za-z][\w-]*)(=.*)?", re.DOTALL)
_NOT_KEPT = frozenset({"as_json", "quiet", "force", "dry_run", "log_json"})
_VALUE_NAMES = {  # what the value of a text option is; others have the last word of their own name
    "pool": "ROWS", "data": "ROWS", "eval": "ROWS", "eval_rows": "ROWS", "existing": "ROWS", "target": "ROWS",
    "examples": "ROWS", "control": "ROWS", "sources": "ROWS", "target_rows": "ROWS", "against": "ROWS",
    "candidates": "ROWS", "replay": "ROWS", "labeled": "ROWS", "general": "ROWS",
    "out": "DIR", "folder": "DIR", "job": "FILE",
    "reference": "MODEL", "judge": "MODEL", "columns": "ROLE=COLUMN,...", "eval_columns": "ROLE=COLUMN,...",
    "settings": "NAME=VALUE", "quota": "COLUMN", "address": "HOST:PORT", "features": "NAME,...", "rules": "NAME,...",
    "methods": "NAME,...",
    "by": "COLUMN", "pred_probs": "COLUMN", "since": "TIME", "lora_targets": "LAYER,...", "sizes": "N,...",
}  # fmt: skip


class _NamedValues:
    """What commands and groups share: the names of their values."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all options and arguments, those of `click` too, with names of their values."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            _name_value(param)
            take_plain_values(param)
        return params


class Command(_NamedValues, TyperCommand):
    """A command with `--config FILE`, `KEY=VALUE`, and the names that people type elsewhere."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        keywords["context_settings"] = {"help_option_names": HELP_NAMES, **(keywords.get("context_settings") or {})}
        super().__init__(*args, **keywords)
        self._config = TyperOption(
            param_decls=["config_file", "--config"],
            type_descriptor=_text_option().type_descriptor,
            metavar="FILE",
            expose_value=False,
            help="Options from a TOML, YAML or JSON file; KEY=VALUE overrides one of them.",
            rich_help_panel=_PANEL,
        )
        if self.params:
            self.params.append(self._config)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the configuration file and the pairs, and let the parser see the rest."""
        words, pairs = self._split_pairs(ctx, [self._translate(word) for word in args])
        path, words = _take_config(words)
        values = {} if path is None else self._read_config(path, ctx)
        values |= {key: self._convert(key, value, "the command line") for key, value in pairs.items()}
        values = {name: self._resolve_addresses(ctx, name, value) for name, value in values.items()}
        ctx.default_map = values
        ctx.meta["thresher.config"] = path is not None or bool(pairs)
        try:
            return super().parse_args(ctx, words)
        except BadParameter as error:
            name = None if error.param is None else error.param.name
            if path is not None and name in values and name not in pairs and name not in _given(ctx):
                error.message = f"{error.message} in {path}"
            raise

    def _resolve_addresses(self, ctx: Any, name: str, value: Any) -> Any:
        """Return a value with the folder here in the place of an address that is written to."""
        param = self._names()[name]
        option = f"--{name.replace('_', '-')}" if isinstance(param, TyperOption) else ""
        return resolve_value(_get_full_name(ctx), option, value)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and keep beside its result what it was told where a file told it."""
        result = super().invoke(ctx)
        out = ctx.params.get("out")
        if ctx.meta.get("thresher.config") and isinstance(out, Path) and not ctx.params.get("dry_run"):
            kept = {name: value for name, value in ctx.params.items() if name not in _NOT_KEPT}
            config_file.write_config(out, _get_full_name(ctx), kept)
        return result

    def _names(self) -> dict[str, Any]:
        """Return the parameters by every name that a configuration file may use for them."""
        names = {param.name: param for param in self.params if param is not self._config}
        for param in list(names.values()):
            if isinstance(param, TyperOption):
                for flag in (*param.opts, *param.secondary_opts):
                    if flag.startswith("--") and not flag.startswith("--no-"):
                        names.setdefault(flag[2:].replace("-", "_"), param)
        return names

    def find_parameter(self, key: str) -> str | None:
        """Return the parameter that a key stands for; None where there is none."""
        names = self._names()
        name = find_name(key, names)
        return None if name is None else names[name].name

    def _translate(self, word: str) -> str:
        """Return the option that a word of another tool stands for, with its value."""
        match = _FLAG.fullmatch(word)
        flags = {flag for param in self.params for flag in (*param.opts, *param.secondary_opts)}
        if match is None or f"--{match[1]}" in flags or match[1] in ("help", "debug"):
            return word
        dashed = f"--{match[1].replace('_', '-')}"
        name = self.find_parameter(match[1])
        if dashed in flags:
            return f"{dashed}{match[2] or ''}"
        if name is None:
            return word
        param = self._names()[name]
        return f"{param.opts[0]}{match[2] or ''}" if isinstance(param, TyperOption) else f"--{name}{match[2] or ''}"

    def _split_pairs(self, ctx: Any, words: list[str]) -> tuple[list[str], dict[str, str]]:
        """Return the words without `KEY=VALUE`, and these by parameter.

        An argument that is spelled as an option (`--dataset FILE`) counts as a pair.
        """
        with_value = {
            flag
            for param in self.params
            if isinstance(param, TyperOption) and not param.is_flag
            for flag in (*param.opts, *param.secondary_opts)
        }
        arguments = {f"--{param.name}": param.name for param in self.params if isinstance(param, TyperArgument)}
        rest: list[str] = []
        pairs: dict[str, str] = {}
        queue = list(words)
        while queue:
            word = queue.pop(0)
            head, equals, value = word.partition("=")
            if head in arguments and (equals or queue):
                pairs[arguments[head]] = value if equals else queue.pop(0)
            elif word == "--":
                rest += [word, *queue]
                break
            elif word in with_value:
                rest += [word, *queue[:1]]
                del queue[:1]
            elif (match := _PAIR.fullmatch(word)) and not os.path.exists(word):
                name = self.find_parameter(match[1])
                if name is None:
                    raise InputError(_describe_unknown("the command line", match[1], ctx.command_path, self._names()))
                pairs[name] = match[2]
            else:
                rest.append(word)
        return rest, pairs

    def _read_config(self, path: str, ctx: Any) -> dict[str, Any]:
        """Return the values of a configuration file for this command, by parameter."""
        root = ctx.find_root().command
        own, common, others = config_file.read_config(path, _get_full_name(ctx), list_all_commands(root))
        values: dict[str, Any] = {}
        for key, value in common.items():
            name = self.find_parameter(key)
            if name is not None:
                values[name] = self._convert(name, value, path)
            elif not any(command.find_parameter(key) for command in _find_commands(root, others)):
                raise InputError(_describe_unknown(path, key, ctx.command_path, self._names()))
        for key, value in own.items():
            name = self.find_parameter(key)
            if name is None:
                raise InputError(_describe_unknown(path, key, ctx.command_path, self._names()))
            values[name] = self._convert(name, value, path)
        return {name: value for name, value in values.items() if value is not None}

    def _convert(self, name: str, value: Any, where: str) -> Any:
        """Return a value as the parser takes it: flags as booleans, all else as text."""
        param = self._names()[name]
        if isinstance(param, TyperOption) and param.is_flag:
            return config_file.to_flag(name, value, where)
        many = isinstance(param, TyperOption) and param.multiple
        return config_file.to_texts(name, value, where) if many else config_file.to_text(name, value, where)


class Group(_NamedValues, TyperGroup):
    """A group of commands, each of them with what every command has."""

    command_class = Command

    def __init__(self, **keywords: Any) -> None:
        keywords["context_settings"] = {"help_option_names": HELP_NAMES, **(keywords.get("context_settings") or {})}
        super().__init__(**keywords)


class App(typer.Typer):
    """A `typer.Typer` whose commands are all of the class `Command`."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**{"cls": Group, **keywords})

    def command(self, name: str | None = None, **keywords: Any) -> Callable[[F], F]:
        """Return the decorator that adds a function as a command."""
        return super().command(name, cls=Command, **keywords)


def _get_full_name(ctx: Any) -> str:
    """Return `train`, or `curate clean`."""
    return str(ctx.command_path).partition(" ")[2]


@lru_cache(maxsize=1)
def _text_option() -> Any:
    """Return the option of a text, as typer makes it of a declaration."""

    def declare(text: str | None = typer.Option(None)) -> None: ...

    declare.__annotations__ = {"text": str | None}
    single = typer.Typer(add_completion=False)
    single.command()(declare)
    return typer.main.get_command(single).params[0]


def _name_value(param: Any) -> None:
    """Give an option the name of its value for the help: N of a count, ROWS, DIR, MODEL."""
    if not isinstance(param, TyperOption | TyperArgument) or param.metavar is not None:
        return
    about = param.type_descriptor
    if about.is_choice:
        return
    if isinstance(param, TyperOption) and param.is_flag:
        param.metavar = ""
        return
    kind = str(about.annotation)
    if param.name in _VALUE_NAMES:
        param.metavar = _VALUE_NAMES[param.name]
    elif "int" in kind or "float" in kind:
        param.metavar = "N" if "int" in kind else "X"
    else:
        param.metavar = param.name.upper().split("_")[-1]


def _take_config(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of `--config`, and the words without it.

    Raises:
        InputError: it has no value, or is given twice.
    """
    paths: list[str] = []
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--config":
            if not queue:
                raise InputError("--config: needs a file, found none; for example --config run.toml")
            paths.append(queue.pop(0))
        elif word.startswith("--config="):
            paths.append(word.partition("=")[2])
        else:
            rest.append(word)
    if len(paths) > 1:
        raise InputError(f"--config: must be given once, found {' and '.join(paths)}; join the files")
    return (paths[0] if paths else None), rest


def _given(ctx: Any) -> set[str]:
    """Return the parameters that the command line itself gave."""
    return {name for name in ctx.params if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")}


def list_all_commands(group: Any, before: str = "") -> dict[str, Any]:
    """Return all commands below a group by their full name: `train`, `curate clean`."""
    commands: dict[str, Any] = {}
    for name, command in _get_commands(group).items():
        if isinstance(command, Command):
            commands[f"{before}{name}"] = command
        commands |= list_all_commands(command, f"{before}{name} ")
    return commands


def _get_commands(command: Any) -> dict[str, Any]:
    """Return the commands of a group; none of a command."""
    return dict(command.commands) if isinstance(command, TyperGroup) else {}


def _find_commands(root: Any, names: Any) -> list[Command]:
    return [command for name, command in list_all_commands(root).items() if name in names]


def _describe_unknown(where: str, key: str, command: str, names: dict[str, Any]) -> str:
    near = did_you_mean(key.replace("-", "_"), names) or f"; see '{command} --help' for all of them"
    return f"{where}: unknown option '{key}' of '{command}'{near}"
