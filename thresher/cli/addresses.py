"""Addresses among the words of a command: checked before anything is read or computed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from thresher.artifacts.local_path import refuse_address
from thresher.artifacts.remote.address import is_address, parse_address, strip_file_scheme
from thresher.artifacts.remote.result import stage
from thresher.artifacts.remote.storage import check_package
from thresher.errors import OutputError
from thresher.models.server_address import SCHEMES

_SERVERS = {"--model", "--annotator", "--teacher", "--judge"}
_COMMAND_OPTIONS, _COMMANDS = ("--metric", "--trainer"), ("command:", "lower:command:")
_OTHERS = {"--address"}  # of a Ray cluster, which has words of its own for what is wrong with one
_ROWS = {
    *("--eval", "--existing", "--target", "--examples", "--source", "--control", "--general", "--test"),
    *(
        "--embeddings",
        "--pred-probs",
        "--job",
        "--against",
        "--data",
        "--candidate",
        "--dev",
        "--replay",
        "--labeled",
        "--unlabeled",
    ),
}
_MANY_FOLDERS = {"advise"}  # which write a folder for each of their steps


def resolve_addresses(words: list[str]) -> list[str]:
    """Return the words of a command in which the output is the folder here where it is made.

    Raises:
        InputError: an address is malformed, or stands where only a path can.
        MissingExtraError: the package for such addresses is not installed.
        OutputError: results cannot be written there.
    """
    return list(_resolve(words))


def resolve_value(command: str, option: str, value: Any) -> Any:
    """Return a value of a configuration file as `resolve_addresses` does a word.

    Args:
        command: that the file is for.
        option: as the command line spells it; "" for an argument.
        value: a text, a list of texts, or a flag.

    Raises:
        InputError: an address is malformed, or stands where only a path can.
        MissingExtraError: the package for such addresses is not installed.
        OutputError: results cannot be written there.
    """
    if isinstance(value, list):
        return [resolve_value(command, option, one) for one in value]
    if not isinstance(value, str):
        return value
    return list(_resolve([command, *([option] if option else []), value]))[-1]


def _resolve(words: list[str]) -> Iterator[str]:
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
        is_command = option in _COMMAND_OPTIONS and value.startswith(_COMMANDS)
        if is_command or not is_address(value):
            yield word if strip_file_scheme(value) == value else word.replace(value, strip_file_scheme(value))
        elif option == "--out":
            yield f"{option}={_stage(words, value)}" if equals else _stage(words, value)
        else:
            _check(option, value)
            yield word


def _stage(words: list[str], value: str) -> str:
    if words[0] in _MANY_FOLDERS:
        raise OutputError(f"{parse_address(value)}: '{words[0]}' writes a folder for each step; give a local folder")
    return str(stage(value))


def _check(option: str, value: str) -> None:
    """Check the address of an input before anything is read."""
    if (option in _SERVERS and value.startswith(SCHEMES)) or option in _OTHERS:
        return
    if option.startswith("--") and option not in _ROWS:
        refuse_address(value)
    check_package(parse_address(value).scheme)
