"""The page of a search for settings: the trials, and whether early scores foretell final ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.reporting.charts.chart import Chart, Dots, linear_axis
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import Block, Figure, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import footer
from thresher.reporting.pages.reproduce import reproduce
from thresher.reporting.wording import (
    MetricDisplay,
    count,
    cut,
    is_number,
    metric_of,
    plain_name,
    seconds,
    significant,
)

TRIALS, RESULT = "trials.csv", "tune.json"
NEEDED = ("best_trial", "best_settings", "metric", "is_higher_better", "test", "verdict")
SHOWN = ("learning_rate", "lora_rank", "lora_alpha", "lora_dropout", "batch_size", "epochs", "max_steps")
MAX_TRIALS = 200  # in the table
EARLY, FINAL = ("early", "early_score", "early_value"), ("final", "final_score", "final_value", "value")


def tuning_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `tune` wrote."""
    content = manifest.content
    found = read_json(folder / RESULT, NEEDED) if (folder / RESULT).is_file() else {}
    is_there = (folder / TRIALS).is_file()
    trials = read_table(folder / TRIALS, ()) if is_there else pl.DataFrame()
    early, final = (next((name for name in names if name in trials.columns), None) for names in (EARLY, FINAL))
    scores = [name for name in (early, final) if name is not None]
    metric = _metric(found, trials, scores, content.get("task"))
    judged = 0 if final is None else int(trials[final].is_not_null().sum())
    blocks: list[Block] = (
        [] if is_there else [Notice(f"There is no {TRIALS} in this folder, so there is little to see.")]
    )
    if early is not None and final is not None:
        blocks += _foretold(metric, trials, early, final)
    if len(trials):
        blocks.append(_table(metric, trials, scores))
    tiles = [Tile("Trials", count(len(trials))), Tile("To the end", count(judged))]
    if "dev_rows" in found:
        tiles.append(Tile("Judged on", count(found["dev_rows"]), "rows held out of the data"))
    if is_number(content.get("run", {}).get("seconds")):
        tiles.append(Tile("Time", seconds(content["run"]["seconds"])))
    return Page(
        kind="tuning",
        title="Search for settings",
        answer=_answer(found, len(trials), judged),
        tiles=tuple(tiles),
        sections=(
            *([Section("The winner", tuple(_winner(metric, found)))] if found else []),
            Section("Trials", tuple(blocks)),
            reproduce(manifest, folder),
        ),
        footer=footer(content),
    )


def _metric(found: Mapping[str, Any], trials: pl.DataFrame, scores: list[str], task: str | None) -> MetricDisplay:
    """Return how scores are shown; those of a folder that does not tell its metric as numbers."""
    values = [value for name in scores for value in trials[name].cast(pl.Float64, strict=False).to_list()]
    name, is_higher_better = str(found.get("metric", "score")), bool(found.get("is_higher_better", False))
    return metric_of(name, values, is_higher_better=is_higher_better, task=task)


def _answer(found: Mapping[str, Any], n_trials: int, n_judged: int) -> str:
    """Return what the search says in a sentence."""
    tried = f"{count(n_trials)} settings were tried, {count(n_judged)} of them to the end"
    if not found:
        return f"{tried}."
    if not found["best_trial"]:
        return f"Stay with the default settings: {tried}, and none was better than they."
    return (
        f"Trial {found['best_trial']} won; against the default settings on the test rows: {found['verdict']}. {tried}."
    )


def _winner(metric: MetricDisplay, found: Mapping[str, Any]) -> list[Block]:
    """Return the winner's settings, what the test rows say of it, and of the averaged adapter if there is one."""
    best, test, average = found["best_settings"], found["test"], found.get("average")
    lines: list[Block] = [
        Table(
            caption=f"Settings of trial {found['best_trial']}",
            columns=("setting", "value"),
            rows=tuple((name, _cell(best[name])) for name in SHOWN if best.get(name) is not None),
        )
    ]
    if test is not None:
        values = f"winner {metric.text(test['winner'])}, default {metric.text(test['default'])}"
        lines.append(Paragraph(f"{plain_name(metric.name)} on the test rows: {values}; {found['verdict']}."))
    if average is not None:
        trials = ", ".join(str(number) for number in average["trials"])
        lines.append(
            Paragraph(
                f"The adapters of trials {trials} averaged into one: {plain_name(metric.name)} "
                f"{metric.text(average['average'])}; against the winner: {average['verdict']}."
            )
        )
    return lines


def _foretold(metric: MetricDisplay, trials: pl.DataFrame, early: str, final: str) -> list[Block]:
    """Return early against final scores of the trials that have both."""
    both = trials.with_row_index("line", offset=1).with_columns(pl.col(early, final).cast(pl.Float64, strict=False))
    both = both.filter(pl.col(early).is_finite() & pl.col(final).is_finite())
    if len(both) < 2:
        return [Paragraph("Fewer than two trials have both an early and a final score.")]
    x, y = both[early].to_list(), both[final].to_list()
    names = both["trial" if "trial" in both.columns else "line"].to_list()
    words = [(str(n), metric.text(a), metric.text(b)) for n, a, b in zip(names, x, y, strict=True)]
    rank = both.select(pl.corr(early, final, method="spearman")).item()
    marks = Dots(
        tone="blue",
        x=[metric.scaled(v) for v in x],
        y=[metric.scaled(v) for v in y],
        tips=tuple(f"trial {name}: early {a}, final {b}" for name, a, b in words),
    )
    better = "higher" if metric.is_higher_better else "lower"
    agreement = f"Rank correlation {rank:.2f} over {len(both)} trials." if is_number(rank) else "No rank correlation."
    return [
        Figure(
            name="early_final",
            title="Early against final scores",
            caption=f"Each point is a trial that was run to the end; {better} is better. {agreement}",
            alt=f"Scatter of early and final scores of {len(both)} trials. {agreement}",
            charts=(
                Chart(
                    x=linear_axis(f"early {metric.label}", min(marks.x), max(marks.x)),
                    y=linear_axis(f"final {metric.label}", min(marks.y), max(marks.y)),
                    marks=(marks,),
                ),
            ),
            table=Table(
                caption="Scores of these trials",
                columns=("trial", "early", "final"),
                rows=tuple(words),
                numeric=frozenset({1, 2}),
            ),
        )
    ]


def _table(metric: MetricDisplay, trials: pl.DataFrame, scores: list[str]) -> Table:
    errors = {name: f"{name}_stderr" for name in scores if f"{name}_stderr" in trials.columns}
    names = [name for name in trials.columns if name not in errors.values()]
    numeric = frozenset(i for i, name in enumerate(names) if trials[name].dtype.is_numeric())
    more = f" (the first {MAX_TRIALS} of {len(trials):,})" if len(trials) > MAX_TRIALS else ""
    return Table(
        caption=f"All trials{more}",
        columns=tuple(names),
        rows=tuple(
            tuple(
                metric.text(row[name], row[errors[name]] if name in errors else None)
                if name in scores
                else _cell(row[name])
                for name in names
            )
            for row in trials.head(MAX_TRIALS).iter_rows(named=True)
        ),
        numeric=numeric,
    )


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and is_number(value):
        return count(value) if value.is_integer() and abs(value) < 1e7 else significant(value)
    return cut(str(value), 200)
