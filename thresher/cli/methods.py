"""`thresher methods`: what selectors there are, and what each one does."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from thresher.selectors import Selector


def methods(
    name: Annotated[str | None, typer.Argument(help="A method, for all there is to know about it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """List the selectors, or tell about one: objective, source, cost, needs, settings, when it fails."""
    from thresher.selectors.registry import available, create, load_class

    names = list(available()) if name is None else [name]
    classes = {each: load_class(each) for each in names}
    if as_json:
        import orjson

        described = [_described(each, cls) for each, cls in classes.items()]
        sys.stdout.write(
            orjson.dumps(described if name is None else described[0], option=orjson.OPT_INDENT_2).decode() + "\n"
        )
    elif name is None:
        width = max(map(len, names))
        for each, cls in classes.items():
            typer.echo(f"{each:<{width}}  {_first_line(cls)}")
        typer.echo("\nthresher methods NAME tells all about one of them.")
    else:
        typer.echo(f"{name}\n\n{inspect.getdoc(classes[name])}\n")
        for setting in _settings(classes[name]):
            value = "VALUE (not set)" if setting.default is None else setting.default
            typer.echo(f"  --set {setting.name}={value}")
        typer.echo("\nPasses over a pool of n rows:")
        for what, passes in _passes(create(name)).items():
            typer.echo(f"  {what}: {passes}")


def _passes(selector: Selector) -> dict[str, str]:
    """Return how often models read the rows, by feature, and what is trained before."""
    from thresher.features.registry import available, load_provider

    told = {f"train {order.role}": order.passes() for order in selector.requirements.adapters}
    for need in sorted(selector.requirements.features):
        passes = load_provider(need).passes if need in available() else "none"
        told[need] = passes
    return told or {"features": "none"}


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _settings(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


def _described(name: str, cls: type) -> dict[str, object]:
    from thresher.selectors.registry import create

    settings = {field.name: field.default for field in _settings(cls)}
    passes = _passes(create(name))
    return {
        "name": name,
        "summary": _first_line(cls),
        "text": inspect.getdoc(cls),
        "settings": settings,
        "passes": passes,
    }
