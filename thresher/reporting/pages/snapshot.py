"""The page of a job's snapshot: rows in, rows out and why, and how far they drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.page import Block, Items, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.figures.nights_figure import build_nights_figure, list_nights, read_changes
from thresher.reporting.pages.reproduce import flatten

KEYS = ("counts", "out", "drift", "alarms", "skipped", "unusable", "entered_by_source")
COUNTS = {
    "read": "read",
    "unusable": "unusable",
    "known": "curated by an earlier run",
    "repeated": "repeats of another",
    "new": "new",
    "passed": "kept by the rules",
    "entered": "in the snapshot",
    "masked": "of these, masked",
}
MAX_LINES = 100
QUALITY = {  # gates on something else than drift
    "min_rows": "the number of rows",
    "max_dropped_share": "the share of new rows that the rules drop",
    "max_unusable_share": "the share of rows that cannot be used",
}


def build_snapshot_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that a job's run wrote."""
    content = manifest.content
    changes = read_changes(folder, KEYS)
    counts, nights = changes["counts"], list_nights(folder, manifest)
    alarms = [_write_alarm(alarm) for alarm in changes["alarms"]]
    answer = _write_answer(content, counts)
    return Page(
        kind="snapshot",
        title=f"{content['job']}, snapshot {content['version']}",
        answer=" ".join(alarms) if alarms else answer,
        more=(answer,) if alarms else (),
        tiles=(
            Tile("Rows", fmt.count(counts["rows"])),
            Tile("Added", fmt.count(counts["entered"])),
            Tile("Removed", fmt.count(counts["left"])),
            Tile("New rows curated", fmt.count(counts["new"])),
        ),
        sections=(
            Section("Night by night", [build_nights_figure(nights)] if len(nights) > 1 else []),
            Section("Rows read and added", _build_incoming(changes)),
            Section("How the method was chosen", [Paragraph(f"{one}.") for one in changes.get("decisions", [])]),
            Section("Rows left out or removed, and why", _build_outgoing(changes["out"])),
            Section("Drift since the previous run", _build_drift(changes)),
            Section("Rules", _build_rules(content["rules"])),
        ),
        footer=build_footer(content),
    )


def _write_answer(content: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    n, n_new, n_left = (fmt.count(counts[name]) for name in ("rows", "entered", "left"))
    weight, cosine = fmt.count(content["weight"]), content["objective"]
    near = "" if cosine is None else f", with a mean cosine of {fmt.significant(cosine)} to the nearest kept row"
    represented = f"They represent the {weight} rows that passed the rules in all runs{near}"
    return f"The pool has {n} rows: {n_new} are new, and {n_left} were removed. {represented}."


def _write_alarm(alarm: Mapping[str, Any]) -> str:
    if "what" in alarm:
        return f"Check this snapshot before you train on it: compared with the one before, {alarm['what']}."
    value, limit = fmt.significant(alarm["value"]), f"{alarm['limit']:g}"
    name = QUALITY.get(alarm["gate"], f"the drift of {alarm['gate']}")
    return f"Check this snapshot before you train on it: {name} is {value}, beyond its limit of {limit}."


def _build_incoming(changes: Mapping[str, Any]) -> list[Block]:
    cells = [(name, fmt.count(changes["counts"][key])) for key, name in COUNTS.items()]
    blocks: list[Block] = [Table(caption="Rows read in this run", columns=("rows", "number"), rows=cells, numeric=(1,))]
    if changes["unusable"]:
        blocks.append(_build_counts("Unusable rows", "reason", changes["unusable"]))
    if changes["entered_by_source"]:
        blocks.append(_build_counts("New rows in the snapshot, by source", "source", changes["entered_by_source"]))
    if changes["skipped"]:
        skipped = changes["skipped"][:MAX_LINES]
        blocks.append(
            Items([f"{one['name']} was deferred to the next run: {fmt.truncate(one['why'], 200)}" for one in skipped])
        )
    return blocks


def _build_counts(caption: str, name: str, counts: Mapping[str, int]) -> Table:
    cells = [(fmt.truncate(key, 100), fmt.count(n)) for key, n in list(counts.items())[:MAX_LINES]]
    return Table(caption=caption, columns=(name, "rows"), rows=cells, numeric=(1,))


def _build_outgoing(out: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not out:
        return [Paragraph("No row was removed, and every new row was added.")]
    cells = [
        (
            str(one["rule"] or one["stage"]),
            str(one["reason"]),
            "an old row" if one["was_kept"] else "a new row",
            fmt.count(one["rows"]),
        )
        for one in out[:MAX_LINES]
    ]
    caption = "Rows that were not added, or were removed; each is in dropped.parquet"
    return [Table(caption=caption, columns=("by", "reason", "what", "rows"), rows=cells, numeric=(3,))]


def _build_drift(changes: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Notice(_write_alarm(alarm)) for alarm in changes["alarms"]]
    if not changes["drift"]:
        return [*blocks, Paragraph("There is no earlier run to compare with.")]
    cells = [
        (
            one["measure"],
            "new rows" if one["of"] == "incoming" else "kept rows",
            *(
                f"{one[name]:,.3f}" if fmt.is_number(one[name]) else fmt.NOTHING
                for name in ("jensen_shannon", "chance", "psi")
            ),
        )
        for one in changes["drift"]
    ]
    table = Table(
        caption="Distribution of the rows, compared with the previous run",
        columns=("distribution over", "of", "Jensen-Shannon", "by chance", "stability index"),
        rows=cells,
        numeric=(2, 3, 4),
    )
    return [*blocks, table]


def _build_rules(rules: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not rules:
        return [Paragraph("No rules, except that each content is kept once.")]
    lines = []
    for rule in rules:
        settings = ", ".join(f"{name}={fmt.truncate(text, 60)}" for name, text in flatten(rule["settings"]))
        lines.append(f"{rule['name']}{' (reports only)' if rule['report'] else ''}: {settings or 'no settings'}")
    return [Items(lines)]
