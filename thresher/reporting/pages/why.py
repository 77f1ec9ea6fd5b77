"""The page of an explanation: the answer, the suspects, and whether they made it."""

from __future__ import annotations

from pathlib import Path

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer

RESULT, ROWS = "why.json", "rows.parquet"
NEEDED = ("question", "answer", "loss", "n_suspects", "verdict", "proof")


def build_why_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `why` wrote."""
    content = read_json(folder / RESULT, NEEDED)
    rows = read_table(folder / ROWS, ("prompt", "response", "score", "rank"))
    suspects = rows.head(int(content["n_suspects"]))
    lines = [
        [fmt.count(row["rank"]), f"{row['score']:+.3f}", row["prompt"], row["response"]]
        for row in suspects.iter_rows(named=True)
    ]
    proof = content["proof"] or {}
    without = [[kind, ", ".join(f"{loss:.3f}" for loss in losses)] for kind, losses in proof.get("losses", {}).items()]
    return Page(
        kind="why",
        title="Training rows behind an answer",
        answer=f"{content['verdict'][0].upper()}{content['verdict'][1:]}.",
        tiles=[
            Tile("Training rows", fmt.count(len(rows))),
            Tile("Suspects", fmt.count(len(suspects))),
            Tile("Loss of the answer", f"{content['loss']:.3f}", "nats"),
        ],
        sections=[
            Section("The answer", [Paragraph(f"{name}: {content[name]}") for name in ("question", "answer")]),
            Section("Suspects", [_build_suspects(lines)]),
            *([Section("Proof", [_build_losses(without)])] if without else []),
        ],
        footer=build_footer(manifest.content),
    )


def _build_suspects(lines: list[list[str]]) -> Table:
    return Table(
        caption="Rows with the largest scores",
        columns=["rank", "score", "prompt", "response"],
        rows=lines,
        numeric=(0, 1),
        text=(2, 3),
    )


def _build_losses(lines: list[list[str]]) -> Table:
    return Table(
        caption="Loss of the answer after training without some rows, in nats, one number per seed",
        columns=["without", "losses"],
        rows=lines,
    )
