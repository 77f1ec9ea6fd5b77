"""Options that the commands of experiments share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli import options
from thresher.errors import InputError
from thresher.validation import build_settings, parse_pairs

if TYPE_CHECKING:
    from thresher.trainer.settings import TrainSettings

_CELLS = "Where the cells run"


class OverlapChoice(StrEnum):
    """What happens to rows that are in the pool and in the test set."""

    refuse = "refuse"
    drop = "drop"


Pool = Annotated[str, typer.Argument(help="Rows to choose from: file, glob, folder, Hub id, or - for stdin.")]
Eval = Annotated[str, typer.Option("--eval", help="Rows to measure on, or a share of the pool to hold out (10%).")]
Model = Annotated[str | None, typer.Option(help="Base model: Hub id or folder; not set: the embedded one.")]
Metric = Annotated[
    str | None, typer.Option(help="accuracy, macro_f1, loss; or loss, exact_match, rouge_l, chrf for language models.")
]
Train = Annotated[
    list[str] | None, typer.Option("--train", help="NAME=VALUE of the training, as epochs=2; repeatable.")
]
MethodSettings = Annotated[list[str] | None, typer.Option("--set", help="METHOD.NAME=VALUE of a method; repeatable.")]
OverlapOption = Annotated[
    OverlapChoice, typer.Option(help="Test rows that are also in the pool: refuse, or drop them from the pool.")
]
Workers = Annotated[str, typer.Option(help="Runs at once; auto: one per core or GPU.", rich_help_panel=_CELLS)]
Engine = Annotated[str, typer.Option(help="local, or ray (RAY_ADDRESS).", rich_help_panel=_CELLS)]
Out = Annotated[Path | None, typer.Option(help="Folder for the result.")]
Page = Annotated[bool, typer.Option("--page/--no-page", help="Write report.html into the folder.")]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def eval_rows(source: str, *, quiet: bool, **reading: Any) -> Any:
    """Return a share as it is, and load everything else as the pool is loaded."""
    return source if source.strip().endswith("%") else options.read_telling(source, quiet=quiet, **reading)


def whole_numbers(option: str, text: str) -> Any:
    """Return [100, 200] from "100,200"; "auto" stays.

    Raises:
        InputError: a part is not a whole number.
    """
    if text == "auto":
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option}: must be auto or whole numbers with commas, as 100,200,400, got '{text}'") from None


def seconds(option: str, text: str | None) -> float | None:
    """Return 1800.0 from "30m".

    Raises:
        InputError: it is not a number with s, m, h or d.
    """
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        return float(number) * _UNITS[unit]
    except ValueError:
        raise InputError(f"{option}: must be a time as 90s, 30m or 4h, got '{text}'") from None


def worker_count(text: str) -> int | None:
    """Return the number of workers; None for auto.

    Raises:
        InputError: it is not a whole number.
    """
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--workers: must be auto or a whole number, got '{text}'") from None


def train_settings(pairs: list[str] | None) -> TrainSettings:
    """Return the settings of the training from NAME=VALUE pairs.

    Raises:
        SettingsError: there is no such setting, or its value does not fit.
    """
    from thresher.trainer.settings import TrainSettings

    settings: TrainSettings = build_settings(TrainSettings, "--train", parse_pairs(pairs or []))
    return settings


def method_settings(pairs: list[str] | None) -> dict[str, dict[str, Any]]:
    """Return {"deft-ucs": {"easy_share": "0.3"}} from ["deft-ucs.easy_share=0.3"].

    Raises:
        InputError: a pair is not METHOD.NAME=VALUE.
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        method, dot, setting = name.partition(".")
        if not (equals and dot and method.strip() and setting.strip()):
            raise InputError(
                f"--set: must be METHOD.NAME=VALUE, got '{pair}'; for example --set deft-ucs.easy_share=0.3"
            )
        found.setdefault(method.strip(), {})[setting.strip().replace("-", "_")] = value.strip()
    return found


def write_page(out: Path | None, *, wanted: bool, quiet: bool) -> None:
    """Write the page of a finished folder, and say where it is."""
    if out is None or not wanted:
        return
    from thresher.reporting import report

    page = report(out)
    if not quiet:
        typer.echo(str(page), err=True)
