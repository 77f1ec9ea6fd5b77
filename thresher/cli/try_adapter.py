"""`thresher try`: an adapter on a text, its base beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from thresher.cli.output import print_block, print_json
from thresher.cli.with_options import with_options
from thresher.printable import join_lines
from thresher.trainer.deployment.settings import PredictSettings

N_LABELS = 3  # likeliest labels that are printed


@with_options(PredictSettings, name="try")
def try_adapter(
    adapter: Annotated[Path, typer.Argument(help="Folder written by 'thresher train' or 'thresher soup'.")],
    settings: PredictSettings,
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT...", help="Text to classify, answer or continue; - reads lines from stdin."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Try a trained adapter on your own texts, next to its base model.

    'thresher novelty' lets it write what its base would not.

    [bold]Example:[/bold] thresher try adapter "Which words are verbs: the dog barks?"
    """
    from thresher.artifacts.manifest import Manifest
    from thresher.experiments.experts.experts import KIND as EXPERTS
    from thresher.experiments.experts.experts import Experts, read_experts
    from thresher.experiments.soups.soup import KIND as SOUP
    from thresher.experiments.soups.soup import Soup, read_soup
    from thresher.trainer.adapter import Adapter

    lines = [line.rstrip("\n") for line in sys.stdin if line.strip()] if texts == ["-"] else texts
    kind = Manifest.read(adapter).content.get("kind")
    trained: Adapter | Soup | Experts
    if kind == EXPERTS:
        trained = read_experts(adapter)
    else:
        trained = read_soup(adapter) if kind == SOUP else Adapter.read(adapter)
    answers = trained.predict(lines, **vars(settings))
    if as_json:
        print_json(answers.to_dicts())
        return
    blocks = []
    for text in dict.fromkeys(lines):
        rows = answers.filter(answers["text"] == text).unique(maintain_order=True).to_dicts()
        if "label" in answers.columns:
            blocks.append(_format_labels(text, rows))
        else:
            blocks.append([f"text     {text}", f"base     {rows[0]['base']}", f"adapter  {rows[0]['adapter']}"])
    for number, block in enumerate(blocks):
        print_block("\n".join([*([""] if number else []), join_lines(block)]))
    if "label" in answers.columns and answers["base"].null_count() == 0:
        print_block("base: the same head on the encoder without the adapter")


def _format_labels(text: str, rows: list[dict[str, object]]) -> list[str]:
    """Return the likeliest labels of a text with their probabilities."""
    shown = rows[:N_LABELS]
    width = max(len("label"), *(len(str(row["label"])) for row in shown))
    lines = [f"text     {text}", f"  {'label':<{width}}  adapter     base"]
    for row in shown:
        base = "" if row["base"] is None else f"{row['base']:>7.3f}"
        lines.append(f"  {row['label']!s:<{width}}  {row['adapter']:>7.3f}  {base}")
    more = len(rows) - len(shown)
    return [*lines, *([f"  and {more} more labels"] if more > 0 else [])]
