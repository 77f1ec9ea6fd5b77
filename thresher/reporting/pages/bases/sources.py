"""The page of a ranking of other data sets: which ones help, and which ones harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.numeric.units import format_count
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, Rows, Rule, Whiskers, linear_axis, points_with_errors
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Figure, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer, describe_incomplete
from thresher.reporting.pages.reproduce import build_reproduction

KEYS = ("answer", "metric", "candidates", "about_distance", "own_rows", "verdicts", "train_rows")


def build_sources_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `base sources` wrote."""
    content, result = manifest.content, read_json(folder / "sources.json", KEYS)
    answer = str(result["answer"])
    helping = [each for each in result["verdicts"] if each["verdict"] == "better"]
    return Page(
        kind="ranking of other data sets",
        title=f"{fmt.count(len(result['candidates']))} other data sets",
        answer=f"{answer[0].upper()}{answer[1:]}.",
        more=describe_incomplete(result),
        tiles=(
            Tile("Your rows", fmt.count(result["own_rows"])),
            Tile("Mixes that help", fmt.count(len(helping)), f"of {fmt.count(len(result['verdicts']))} trained"),
            Tile("Time", fmt.seconds(content["run"]["seconds"])),
        ),
        sections=[
            Section("After training", _build_verdicts(result, content)),
            Section("Distances", [_build_candidates(result)]),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_verdicts(result: Mapping[str, Any], content: Mapping[str, Any]) -> list[Block]:
    if not result["verdicts"]:
        return [Notice("Nothing was trained, so it is not known whether any of them helps.")]
    train_rows = fmt.rows(result["train_rows"])
    about = f"Each mix has the same {train_rows} of yours. Intervals are over test rows and seeds."
    return [build_effects(result["verdicts"], result["metric"], "your own rows alone", about, content.get("task"))]


def build_effects(
    verdicts: Sequence[Mapping[str, Any]],
    metric_name: str,
    against: str,
    about: str,
    task: str | None,
    *,
    is_corrected: bool = True,
) -> Figure:
    """Return the differences of arms to another, with their intervals, and a table of verdicts.

    Args:
        verdicts: as of `ArmRunner.compare`.
        metric_name: that was compared.
        against: the other arm, in words.
        about: sentences for the caption.
        task: of the model.
        is_corrected: the verdicts allow for the number of comparisons.
    """
    is_rate = metric_name in fmt.RATES
    metric = fmt.MetricDisplay(metric_name, is_higher_better=is_rate, is_rate=is_rate, task=task)
    scale = 100 if metric.is_rate else 1
    effects = [each["difference"] for each in verdicts]
    labels = tuple(str(each["arm"]) for each in verdicts)
    marks = points_with_errors(
        tone="blue",
        x=[scale * each["value"] for each in effects],
        y=list(range(len(effects))),
        errors=[scale * (each["high"] - each["low"]) / 2 for each in effects],
        shape="circle",
        tips=[f"{label}: {metric.difference(each['value'])}" for label, each in zip(labels, effects, strict=True)],
        is_lying=True,
    )
    whiskers = [mark for mark in marks if isinstance(mark, Whiskers)]
    ends = [0.0, *(x for mark in whiskers for x in (*mark.low, *mark.high))]
    unit = "points" if metric.is_rate else fmt.readable_name(metric_name)
    return Figure(
        name="effects",
        title=f"Better or worse than {against}",
        caption=f"Right of zero is better. {about}",
        alt=f"Dot plot of the differences of {len(verdicts)} arms from {against}; the table below has the numbers.",
        charts=(
            Chart(
                x=linear_axis(f"difference from {against} ({unit})", min(ends), max(ends)),
                y=Rows(labels),
                marks=[Rule(at=0.0, tone="gray"), *marks],
            ),
        ),
        table=_build_verdict_table(verdicts, metric, against, is_corrected=is_corrected),
    )


def _build_verdict_table(
    verdicts: Sequence[Mapping[str, Any]], metric: fmt.MetricDisplay, against: str, *, is_corrected: bool
) -> Table:
    corrected = f", after Holm's correction for {format_count(len(verdicts), 'comparison')}" if is_corrected else ""
    rows = [
        (
            str(each["arm"]),
            metric.text(each["value"]),
            metric.text(each["against_value"]),
            metric.difference(each["difference"]["value"]),
            str(each["sentence"]),
        )
        for each in verdicts
    ]
    columns = ("arm", "score", against, "difference", "verdict")
    return Table(caption=f"Verdicts{corrected}", columns=columns, rows=rows, numeric=(1, 2, 3))


def _build_candidates(result: Mapping[str, Any]) -> Table | Paragraph:
    rows = [
        (
            str(each["name"]),
            fmt.count(each["n_rows"]),
            fmt.NOTHING if each["distance"] is None else f"{each['distance']:.3f}",
            f"{each['similarity']:.3f}",
            fmt.share(each["leaks"], 1),
            fmt.share(each["repeats"], 1),
            fmt.NOTHING
            if each["conflicts"] is None
            else f"{fmt.share(each['conflicts'], 1)} ({fmt.rows(each['n_conflicts'])})",
        )
        for each in result["candidates"]
    ]
    return Table(
        caption=f"Nearest first; {result['about_distance']}",
        columns=(
            "data set",
            "rows",
            "transport distance",
            "similarity",
            "in the test rows",
            "in your rows",
            "conflicts",
        ),
        rows=rows,
        numeric=range(1, 7),
    )
