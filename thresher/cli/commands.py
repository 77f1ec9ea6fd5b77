"""The commands of `thresher`, each imported when it is asked for.

What the commands import takes longer than a selection of some rows does.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer

from thresher.cli.command import App, Group
from thresher.cli.output import print_line


class _Verb(NamedTuple):
    """Where a command is.

    Attributes:
        home: module of this package.
        name: in the module, of the function or of the group of commands.
        panel: heading under which the help lists it; "" for one that another command's help names.
    """

    home: str
    name: str
    panel: str


_ROWS, _CLEAN, _MACHINE = "Which rows?", "Are the rows clean?", "This machine"
_LABEL = "Which rows should be labeled?"
_WORTH, _TRAIN = "Is it worth it, and how many rows are enough?", "How do I train on them?"
_MODEL = "Which base model, and which other data?"
_MORE = "Too few rows?"
VERBS = {  # in the order of the help
    "advise": _Verb("advise", "advise", _WORTH),
    "curve": _Verb("curve", "curve", _WORTH),
    "compare": _Verb("compare", "compare", _WORTH),
    "curate": _Verb("curate_job", "curate_app", _CLEAN),
    "correct": _Verb("correct", "correct", ""),
    "label": _Verb("label", "label_app", _LABEL),
    "grow": _Verb("grow", "grow", _MORE),
    "select": _Verb("select", "select", _ROWS),
    "score": _Verb("score", "score", ""),
    "methods": _Verb("methods", "methods", ""),
    "base": _Verb("base", "base_app", _MODEL),
    "mix": _Verb("mix", "mix", _MODEL),
    "train": _Verb("train", "train", _TRAIN),
    "tune": _Verb("tune", "tune", _TRAIN),
    "try": _Verb("try_adapter", "try_adapter", _TRAIN),
    "export": _Verb("export", "export", _TRAIN),
    "soup": _Verb("soup", "soup", ""),
    "why": _Verb("why", "why", ""),
    "novelty": _Verb("novelty", "novelty", ""),
    "report": _Verb("report", "report", "What is the result?"),
    "doctor": _Verb("doctor", "doctor", _MACHINE),
    "warm-up": _Verb("warm_up", "prepare_kernels", ""),
    "cache": _Verb("cache", "cache_app", ""),
}


class _TopGroup(Group):
    """All commands, in the order of `VERBS`: typer puts groups behind single commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help."""
        return sorted(super().list_commands(ctx), key=list(VERBS).index)


def build_app(verb: str | None = None) -> App:
    """Return the command line.

    Args:
        verb: the only command that is needed; all are there where it is none of them.
    """
    app = App(
        cls=_TopGroup,
        name="thresher",
        help="Which rows should I fine-tune on, and how many are enough?",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_top)
    for name in [verb] if verb in VERBS else VERBS:
        where = VERBS[name]
        command: Callable[..., Any] | typer.Typer = getattr(import_module(f"thresher.cli.{where.home}"), where.name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=where.panel or None, hidden=not where.panel)
        else:
            app.command(name, rich_help_panel=where.panel or None, hidden=not where.panel)(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from thresher import __version__

        print_line(f"thresher {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Which rows should I fine-tune on, and how many are enough?"""
