"""A command's options are made of the fields of its settings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from thresher.cli.with_options import with_options
from thresher.errors import SettingsError
from thresher.validation import check_settings, option


@dataclass(frozen=True, kw_only=True)
class Oven:
    trays: int = option(3, "Trays in it.", ge=1, panel="Inside")
    heat: float | None = option(None, "Degrees.", gt=0)
    mode: Literal["fan", "grill"] = option("fan", "How it heats.")
    names: tuple[str, ...] | Literal["auto"] = option("auto", "auto, or names.")
    is_open: bool = option(False, "Leave it open.", flag="--open")
    inner: int = 1  # no help: not an option

    def __post_init__(self) -> None:
        check_settings(self, "oven")


def run(*words):
    calls = []
    app = typer.Typer()

    @with_options(Oven)
    def bake(dish: Annotated[str, typer.Argument()], oven: Oven, seed: Annotated[int, typer.Option()] = 0) -> None:
        calls.append((dish, oven, seed))

    app.command()(bake)
    return CliRunner().invoke(app, list(words)), calls


def test_options_fill_the_settings():
    result, calls = run("bread", "--trays", "2", "--mode", "grill", "--names", "a,b", "--open", "--seed", "4")
    assert result.exit_code == 0
    assert calls == [("bread", Oven(trays=2, mode="grill", names=("a", "b"), is_open=True), 4)]


def test_defaults_are_those_of_the_fields():
    assert run("bread")[1] == [("bread", Oven(), 0)]


def test_help_shows_each_field_with_its_description():
    shown = run("--help")[0].output
    for text in ("Trays in it.", "Degrees.", "--open", "Inside", "auto, or names."):
        assert text in shown
    assert "--inner" not in shown


@pytest.mark.parametrize("words", [("--trays", "0"), ("--mode", "gril"), ("--trays", "many")])
def test_the_parser_refuses_what_it_can(words):
    assert run("bread", *words)[0].exit_code == 2


def test_the_settings_refuse_the_rest():
    assert isinstance(run("bread", "--heat", "-1")[0].exception, SettingsError)


@dataclass(frozen=True, kw_only=True)
class Rack:
    depths: tuple[float, ...] = option((), "How deep.", gt=0, flag="--depth", is_repeatable=True)
    heights: tuple[int, ...] | Literal["auto"] = option("auto", "auto, or numbers.")
    width: int | Literal["auto"] = option(1, "How wide.", ge=1)
    inner: int = option(1, "Described, and not an option.", flag="")


def test_lists_are_repeated_or_have_commas_and_a_command_may_have_its_own_default():
    calls = []
    app = typer.Typer()

    @with_options(Rack, defaults={"width": "auto"})
    def fill(rack: Rack) -> None:
        calls.append(rack)

    app.command()(fill)
    for words in (["--depth", "1", "--depth", "2.5", "--heights", "3,4", "--width", "2"], []):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert calls == [Rack(depths=(1.0, 2.5), heights=(3, 4), width=2), Rack(width="auto")]
    assert CliRunner().invoke(app, ["--inner", "1"]).exit_code == 2


def test_typer_is_the_version_whose_inner_parts_are_used():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (typer,) = [line for line in project["dependencies"] if line.startswith("typer")]
    assert typer == "typer>=0.29.2,<0.30"
