"""`thresher methods`: what selectors there are, and what each one does."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli.output import print_block, print_json, print_line

if TYPE_CHECKING:
    from thresher.plugins import Alias
    from thresher.selectors import Selector


def methods(
    name: Annotated[str | None, typer.Argument(help="A method, by its name here or in its paper.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """List the selectors, or describe one: objective, source, cost, settings, when it fails."""
    from thresher.selectors.registry import SELECTORS

    alias = None if name is None else SELECTORS.resolve(name)
    names = list(SELECTORS.available()) if alias is None else [alias.name]
    descriptions = [_describe(each) for each in names]
    if as_json:
        print_json(descriptions if alias is None else descriptions[0])
    elif name is None or alias is None:
        width = max(map(len, names))
        for each in descriptions:
            other = f" [{', '.join(each['aliases'])}]" if each["aliases"] else ""
            print_line(f"{each['name']:<{width}}  {each['summary']}{other}")
        for other, where in SELECTORS.elsewhere.items():
            print_block(f"\n{other} is {where}")
        print_block("\nthresher methods NAME describes one of them; names from papers in brackets are accepted too.")
    else:
        _print_method(name, alias, descriptions[0])


def _print_method(name: str, alias: Alias, description: dict[str, Any]) -> None:
    """Print all about one method, the settings as the name stands for them."""
    print_block(f"{name if name == alias.name else _spell_alias(name, alias)}\n\n{description['text']}\n")
    for setting, default in (description["settings"] | alias.settings).items():
        print_line(f"  --set {setting}={'VALUE (not set)' if default is None else default}")
    print_block("\nPasses over a pool of n rows:")
    for what, passes in description["passes"].items():
        print_line(f"  {what}: {passes}")
    if description["aliases"]:
        from thresher.selectors.aliases import ALIASES

        others = [_spell_alias(other, ALIASES[other]) for other in description["aliases"]]
        print_block(f"\nOther names: {', '.join(others)}")


def _spell_alias(name: str, alias: Alias) -> str:
    settings = "".join(f" {key}={value}" for key, value in alias.settings.items())
    return f"{name} = {alias.name}{settings}"


def _describe_passes(selector: Selector) -> dict[str, str]:
    """Return how often models read the rows, by feature, and what is trained before."""
    from thresher.features.registry import available, load_provider

    needs = selector.requirements
    passes = {f"train {adapter.role}": adapter.passes() for adapter in needs.adapters}
    for feature in sorted(needs.features):
        passes[feature] = load_provider(feature).passes if feature in available() else "none"
    return passes or {"features": "none"}


def _describe(name: str) -> dict[str, Any]:
    from thresher.selectors.aliases import ALIASES
    from thresher.selectors.registry import SELECTORS

    cls: Any = SELECTORS.load(name)
    text = inspect.getdoc(cls) or ""
    return {
        "name": name,
        "summary": text.partition("\n")[0],
        "text": text,
        "settings": {field.name: field.default for field in dataclasses.fields(cls)},
        "passes": _describe_passes(SELECTORS.create(name)),
        "aliases": sorted(other for other, alias in ALIASES.items() if alias.name == name),
    }
