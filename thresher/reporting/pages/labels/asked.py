"""The page of `label ask`: what the next labels are expected to bring, and which rows they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.artifacts.stored import read_json_lines
from thresher.numeric.units import format_points
from thresher.reporting import formatting as fmt
from thresher.reporting.page import Block, Example, Examples, Page, Paragraph, Section, Share, ShareBars, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.reproduce import build_reproduction

OWN = ("thresher_row_id", "thresher_why", "thresher_nearest", "thresher_nearest_label")
N_SHOWN, TEXT, MAX_LABELS = 12, 400, 20


def build_asked_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `label ask` wrote."""
    content, counts = manifest.content, manifest.content["counts"]
    rows, labeled = (read_json_lines(folder / name) for name in ("ask.jsonl", "labeled.jsonl"))
    machine = read_json_lines(folder / "machine.jsonl") if content["annotator"] is not None else []
    return Page(
        kind="rows to label",
        title=f"{fmt.rows(counts['asked'])} to label",
        answer=f"{str(content['answer'])[:1].upper()}{str(content['answer'])[1:]}.",
        tiles=(
            Tile("To label", fmt.count(counts["asked"]), f"by {content['by']}"),
            Tile("Labeled so far", fmt.count(counts["labeled"]), f"{fmt.count(len(content['classes']))} labels"),
            Tile("Without a label", fmt.count(counts["unlabeled"]), "rows of the pool"),
        ),
        sections=[
            Section("What the next labels bring", _build_gain(content["gain"])),
            Section("The rows, the most useful first", [_build_rows(rows, content["label_column"])]),
            Section("What the model answered", _build_machine(machine, content)),
            Section("The labels so far", build_label_bars(labeled, content["label_column"])),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_gain(gain: Mapping[str, Any] | None) -> list[Block]:
    if gain is None:
        return [Paragraph("With so few labels, nothing can be said about what more will add.")]
    stop = "more than can be foreseen" if gain["stop_at"] is None else f"about {fmt.count(gain['stop_at'])}"
    now = gain["accuracy"]
    rows = [
        ("labels so far", fmt.count(gain["n_labeled"])),
        ("accuracy now", "not known without test rows (--eval)" if now is None else _format_interval(now)),
        (f"gain by the next {fmt.count(gain['batch'])}", f"{_format_interval(gain['gain'])} points"),
        (f"labels beyond which a batch adds less than {format_points(gain['delta'])}", stop),
        ("judged by", str(gain["measured_on"])),
    ]
    return [Table(caption="Expected, with the 80 % interval", columns=("", "value"), rows=rows)]


def _format_interval(interval: Mapping[str, float]) -> str:
    middle, low, high = (100 * interval[name] for name in ("median", "low", "high"))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def _build_rows(rows: Sequence[Mapping[str, Any]], label_column: str) -> Block:
    examples = [
        Example(
            text=fmt.truncate(write_row(row, (*OWN, label_column)), TEXT),
            reason=str(row["thresher_why"]),
            beside=_write_nearest(row),
            place=f"row {row['thresher_row_id']}",
            beside_is="the most similar labeled row",
        )
        for row in rows[:N_SHOWN]
    ]
    return Examples(f"{len(examples)} of {fmt.rows(len(rows))}", "All are in ask.jsonl.", examples)


def write_row(row: Mapping[str, Any], others: Sequence[str] = ()) -> str:
    """Return what the user wrote in a row: one text alone, or each column with its name."""
    own = {name: value for name, value in row.items() if name not in others and value not in (None, "")}
    if len(own) == 1:
        return str(next(iter(own.values())))
    return "; ".join(f"{name}: {value}" for name, value in own.items())


def _write_nearest(row: Mapping[str, Any]) -> str | None:
    if row["thresher_nearest"] is None:
        return None
    return fmt.truncate(f"{row['thresher_nearest_label']}: {row['thresher_nearest']}", TEXT)


def _build_machine(machine: Sequence[Mapping[str, Any]], content: Mapping[str, Any]) -> list[Block]:
    if not machine:
        return []
    counts = Counter(str(each["label"]) if each["label"] is not None else str(each["problem"]) for each in machine)
    n_checked = sum(bool(each["is_checked"]) for each in machine)
    sentence = (
        f"{content['annotator']} answered {fmt.rows(len(machine))}; people label {fmt.count(n_checked)} of them as "
        "well, without seeing its answers."
    )
    return [Paragraph(sentence), _build_bars(counts, "Its answers")]


def build_label_bars(rows: Sequence[Mapping[str, Any]], label_column: str) -> list[Block]:
    """Return a bar for each of the most frequent labels."""
    counts = Counter(str(row.get(label_column)) for row in rows)
    return [_build_bars(counts, "Rows by label")] if counts else []


def _build_bars(counts: Mapping[str, int], caption: str) -> Block:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    largest = max(1, ordered[0][1])
    more = f", the {MAX_LABELS} most frequent of {len(ordered)}" if len(ordered) > MAX_LABELS else ""
    shares = [Share(fmt.truncate(name, 60), n / largest, fmt.count(n), "gray") for name, n in ordered[:MAX_LABELS]]
    return ShareBars(f"{caption}{more}", ("label", "rows"), shares)
