"""The one place where the command line prints: nobody's control characters reach the terminal."""

from __future__ import annotations

import sys
from typing import Any

import typer

from thresher.artifacts.remote.places import name_addresses
from thresher.printable import escape_controls, escape_json, escape_line


def print_line(text: str, *, err: bool = False) -> None:
    """Print one line, whatever the names in it hold: of a result, or what a person should know.

    Args:
        text: of the line.
        err: print it on standard error.
    """
    typer.echo(escape_line(name_addresses(text)), err=err)


def print_block(text: str, *, err: bool = False) -> None:
    """Print lines that were joined by `join_lines`, or are our own.

    Args:
        text: of all lines.
        err: print them on standard error.
    """
    typer.echo(escape_controls(name_addresses(text)), err=err)


def print_json(content: Any) -> None:
    """Print a value as JSON on standard output."""
    import orjson

    print_json_text(orjson.dumps(content, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_plan(plan: Any, *, as_json: bool) -> None:
    """Print what a dry run says on standard output: it is what it is for."""
    if as_json:
        print_json(plan.to_json())
    else:
        print_block(str(plan))


def print_json_text(text: str) -> None:
    """Print JSON that is written already on standard output."""
    sys.stdout.write(escape_json(name_addresses(text)))
