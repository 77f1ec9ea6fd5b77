"""The page of a job's snapshot: rows in, rows out and why, and how far they drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Items, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import footer
from thresher.reporting.wording import count, cut, significant

CHANGES = "changes.json"
OLD_CHANGES = "churn.json"  # its first name, in older snapshots
NEEDED = ("counts", "out", "drift", "alarms", "skipped", "unusable", "entered_by_source")
MAX_LINES = 100


def snapshot_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that a job's run wrote."""
    content = manifest.content
    path = folder / CHANGES
    changes = read_json(path if path.exists() else folder / OLD_CHANGES, NEEDED)
    counts = changes["counts"]
    return Page(
        kind="snapshot",
        title=f"{content['job']}, snapshot {content['version']}",
        answer=_answer(content, counts),
        tiles=(
            Tile("Rows", count(counts["rows"])),
            Tile("Entered", count(counts["entered"])),
            Tile("Left", count(counts["left"])),
            Tile("New rows judged", count(counts["new"])),
        ),
        sections=(
            Section("In", tuple(_incoming(changes))),
            Section("Out, and why", tuple(_out(changes["out"]))),
            Section("Drift since the last run", tuple(_drift(changes))),
            Section("Rules", tuple(_rules(content["rules"]))),
        ),
        footer=footer(content),
    )


def _answer(content: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    """Return what the run did in a sentence."""
    stands = f"They stand for the {count(content['weight'])} rows that passed the rules in all runs"
    covered = content["objective"]
    how_well = "" if covered is None else f", with a mean cosine of {significant(covered)} to the nearest kept row"
    return (
        f"The pool has {count(counts['rows'])} rows: {count(counts['entered'])} are new, "
        f"{count(counts['left'])} left. {stands}{how_well}."
    )


def _incoming(changes: Mapping[str, Any]) -> list[Block]:
    counts = changes["counts"]
    blocks: list[Block] = [
        Table(
            caption="Rows read in this run",
            columns=("rows", "number"),
            rows=tuple(
                (name, count(counts[key]))
                for name, key in (
                    ("read", "read"),
                    ("unusable", "unusable"),
                    ("judged by an earlier run", "known"),
                    ("repeats of another", "repeated"),
                    ("new", "new"),
                    ("kept by the rules", "passed"),
                    ("in the snapshot", "entered"),
                    ("of them masked", "masked"),
                )
            ),
            numeric=frozenset({1}),
        )
    ]
    if changes["unusable"]:
        blocks.append(_counted("Unusable rows", "reason", changes["unusable"]))
    if changes["entered_by_source"]:
        blocks.append(_counted("New rows in the snapshot, by source", "source", changes["entered_by_source"]))
    if changes["skipped"]:
        told = [f"{one['name']} was left to the next run: {cut(one['why'], 200)}" for one in changes["skipped"]]
        blocks.append(Items(tuple(told[:MAX_LINES])))
    return blocks


def _counted(caption: str, name: str, counts: Mapping[str, int]) -> Table:
    rows = tuple((cut(key, 100), count(n)) for key, n in list(counts.items())[:MAX_LINES])
    return Table(caption=caption, columns=(name, "rows"), rows=rows, numeric=frozenset({1}))


def _out(out: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not out:
        return [Paragraph("No row left, and every new row entered.")]
    lines = tuple(
        (
            str(one["rule"] or one["stage"]),
            str(one["reason"]),
            "an old row" if one["was_kept"] else "a new row",
            count(one["rows"]),
        )
        for one in out[:MAX_LINES]
    )
    table = Table(
        caption="Rows that did not enter, or that left; each is in dropped.parquet",
        columns=("by", "reason", "what", "rows"),
        rows=lines,
        numeric=frozenset({3}),
    )
    return [table]


def _drift(changes: Mapping[str, Any]) -> list[Block]:
    alarms: list[Block] = [
        Notice(f"{one['gate']} is {significant(one['value'])}, beyond its limit of {significant(one['limit'])}.")
        for one in changes["alarms"]
    ]
    if not changes["drift"]:
        return [*alarms, Paragraph("There is no earlier run to compare with.")]
    lines = tuple(
        (
            one["measure"],
            "new rows" if one["of"] == "incoming" else "kept rows",
            significant(one["jensen_shannon"]),
            significant(one["chance"]),
            significant(one["psi"]),
        )
        for one in changes["drift"]
    )
    return [
        *alarms,
        Table(
            caption="Spread of the rows against the last run",
            columns=("spread over", "of", "Jensen-Shannon", "by chance", "stability index"),
            rows=lines,
            numeric=frozenset({2, 3, 4}),
        ),
    ]


def _rules(rules: Sequence[Mapping[str, Any]]) -> list[Block]:
    if not rules:
        return [Paragraph("No rules but one row per content.")]
    told = [
        f"{rule['name']}{' (reports only)' if rule['report'] else ''}: "
        + (", ".join(f"{name} {cut(str(value), 60)}" for name, value in rule["settings"].items()) or "no settings")
        for rule in rules
    ]
    return [Items(tuple(told))]
