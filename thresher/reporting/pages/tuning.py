"""The page of a search for settings: the trials, and whether early scores predict final ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.numeric.units import format_count
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, Dots, linear_axis
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import Block, Figure, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer, describe_incomplete
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.row_zero import build_gains, write_row_zero

TRIALS, RESULT = "trials.csv", "tune.json"
NEEDED = ("best_trial", "best_settings", "metric", "is_higher_better", "test", "verdict")
SHOWN = ("adapter", "learning_rate", "lora_rank", "lora_alpha", "lora_dropout", "batch_size", "epochs", "max_steps")
MAX_TRIALS = 200  # in the table
EARLY, FINAL = "early", "final"  # columns with scores after some of the steps, and at the end


def build_tuning_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `tune` wrote."""
    content = manifest.content
    result = read_json(folder / RESULT, NEEDED) if (folder / RESULT).is_file() else {}
    has_trials = (folder / TRIALS).is_file()
    trials = read_table(folder / TRIALS, ("trial", EARLY, FINAL)) if has_trials else pl.DataFrame()
    metric = _describe_metric(result, trials, content.get("task"))
    n_finished = int(trials[FINAL].is_not_null().sum()) if has_trials else 0
    blocks: list[Block] = [Notice(f"There is no {TRIALS} in this folder, so there is little to show.")]
    if has_trials:
        blocks = [*_build_early_final(metric, trials), _build_table(metric, trials)]
    tiles = [Tile("Trials", fmt.count(len(trials))), Tile("Trials run to the end", fmt.count(n_finished))]
    if "dev_rows" in result:
        tiles.append(Tile("Evaluated on", fmt.count(result["dev_rows"]), "rows held out of the data"))
    if fmt.is_number(content.get("run", {}).get("seconds")):
        tiles.append(Tile("Time", fmt.seconds(content["run"]["seconds"])))
    return Page(
        kind="tuning",
        title="Search for settings",
        answer=write_tuning_answer(result, len(trials), n_finished, *count_measured(content)),
        more=[*describe_incomplete(result), *write_row_zero(result.get("base")), *_write_forgetting(result)],
        tiles=tiles,
        sections=[
            Section("The winner", _build_winner(metric, result) if result else []),
            Section("Without training", build_gains(result.get("base"), metric)),
            Section("Trials", blocks),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def count_measured(content: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return test rows and seeds of a search, from its manifest; None where it does not say."""
    return (content.get("test") or {}).get("rows"), (content.get("asked") or {}).get("seeds")


def _describe_metric(result: Mapping[str, Any], trials: pl.DataFrame, task: str | None) -> fmt.MetricDisplay:
    """Return how scores are shown: as plain numbers where the folder does not name its metric."""
    scores = [trials[name].cast(pl.Float64, strict=False) for name in (EARLY, FINAL) if name in trials.columns]
    values = [value for column in scores for value in column.to_list()]
    name, is_higher_better = str(result.get("metric", "score")), bool(result.get("is_higher_better", False))
    return fmt.describe_metric(name, values, is_higher_better=is_higher_better, task=task)


def write_tuning_answer(
    result: Mapping[str, Any], n_trials: int, n_finished: int, n_test: int | None, n_seeds: int | None
) -> str:
    """Return the answer of a search: the winner, or to stay with the default settings.

    Args:
        result: of `tune.json`; empty where there is none.
        n_trials: settings tried.
        n_finished: of these, trained to the end.
        n_test: test rows; None where that is not known.
        n_seeds: runs of winner and default on them; likewise.
    """
    tried = f"{fmt.count(n_trials)} settings were tried, {fmt.count(n_finished)} of them trained to the end"
    if not result:
        return f"{tried}."
    excluded = _describe_excluded(result.get("general") or {})
    if not result["best_trial"]:
        none = "none within the allowed forgetting was better" if excluded else "none was better"
        dev = f" on {fmt.rows(result['dev_rows'])} held out of the data" if "dev_rows" in result else ""
        return f"Stay with the default settings: {tried}, and {none}{dev}{excluded}."
    test = "the test rows" if n_test is None else format_count(n_test, "test row")
    seeds = "" if n_seeds is None else f" ({format_count(n_seeds, 'seed')})"
    won = f"Trial {result['best_trial']} won"
    return f"{won}; compared with the default settings on {test}{seeds}: {result['verdict']}. {tried}{excluded}."


def _describe_excluded(general: Mapping[str, Any]) -> str:
    """Return which trials score better than the winner, but forget too much; empty for none."""
    numbers = [str(number) for number in general.get("excluded", ())]
    if not numbers:
        return ""
    one = len(numbers) == 1
    return (
        f"; {'trial' if one else 'trials'} {fmt.join_words(numbers)} {'scores' if one else 'score'} better, "
        f"but {'forgets' if one else 'forget'} more than {general['allowed']:g} bits per byte"
    )


def _write_forgetting(result: Mapping[str, Any]) -> list[str]:
    """Return what the winner forgets of the general rows, where that was measured."""
    general = result.get("general")
    return [f"{general['sentence'][0].upper()}{general['sentence'][1:]}."] if general else []


def _build_winner(metric: fmt.MetricDisplay, result: Mapping[str, Any]) -> list[Block]:
    """Return the winner's settings and test score, and those of the averaged adapter if any."""
    best, test, average = result["best_settings"], result["test"], result.get("average")
    settings = [(name, _format_cell(best[name])) for name in SHOWN if best.get(name) is not None]
    lines: list[Block] = [
        Table(caption=f"Settings of trial {result['best_trial']}", columns=("setting", "value"), rows=settings)
    ]
    if test is not None:
        values = f"winner {metric.text(test['winner'])}, default {metric.text(test['default'])}"
        lines.append(Paragraph(f"{fmt.readable_name(metric.name)} on the test rows: {values}; {result['verdict']}."))
    if average is not None:
        trials = ", ".join(str(number) for number in average["trials"])
        lines.append(
            Paragraph(
                f"The adapters of trials {trials} averaged: {fmt.readable_name(metric.name)} "
                f"{metric.text(average['average'])}; compared with the winner: {average['verdict']}."
            )
        )
    return lines


def _build_early_final(metric: fmt.MetricDisplay, trials: pl.DataFrame) -> list[Block]:
    """Return early against final scores, for the trials that have both."""
    both = trials.with_columns(pl.col(EARLY, FINAL).cast(pl.Float64, strict=False))
    both = both.filter(pl.col(EARLY).is_finite() & pl.col(FINAL).is_finite())
    if len(both) < 2:
        return [Paragraph("Fewer than two trials have both an early and a final score.")]
    x, y = both[EARLY].to_list(), both[FINAL].to_list()
    words = [(str(n), metric.text(a), metric.text(b)) for n, a, b in zip(both["trial"], x, y, strict=True)]
    rank = both.select(pl.corr(EARLY, FINAL, method="spearman")).item()
    tips = tuple(f"trial {name}: early {a}, final {b}" for name, a, b in words)
    dots = Dots(tone="blue", x=[metric.scaled(v) for v in x], y=[metric.scaled(v) for v in y], tips=tips)
    chart = Chart(
        x=linear_axis(f"early {metric.label}", min(dots.x), max(dots.x)),
        y=linear_axis(f"final {metric.label}", min(dots.y), max(dots.y)),
        marks=(dots,),
    )
    columns = ("trial", "early", "final")
    better = "higher" if metric.is_higher_better else "lower"
    agreement = (
        f"Rank correlation {rank:.2f} over {len(both)} trials." if fmt.is_number(rank) else "No rank correlation."
    )
    return [
        Figure(
            name="early_final",
            title="Early versus final scores",
            caption=f"Each point is a trial that was run to the end; {better} is better. {agreement}",
            alt=f"Scatter of early and final scores of {len(both)} trials. {agreement}",
            charts=(chart,),
            table=Table(caption="Scores of these trials", columns=columns, rows=words, numeric=(1, 2)),
        )
    ]


def _build_table(metric: fmt.MetricDisplay, trials: pl.DataFrame) -> Table:
    scores = (EARLY, FINAL)
    errors = {name: f"{name}_stderr" for name in scores if f"{name}_stderr" in trials.columns}
    names = [name for name in trials.columns if name not in errors.values()]
    cells = [
        [
            metric.text(row[name], row[errors[name]] if name in errors else None)
            if name in scores
            else _format_cell(row[name])
            for name in names
        ]
        for row in trials.head(MAX_TRIALS).iter_rows(named=True)
    ]
    more = f" (the first {MAX_TRIALS} of {len(trials):,})" if len(trials) > MAX_TRIALS else ""
    numeric = [i for i, name in enumerate(names) if trials[name].dtype.is_numeric()]
    return Table(caption=f"All trials{more}", columns=names, rows=cells, numeric=numeric)


def _format_cell(value: object) -> str:
    if value is None:
        return fmt.NOTHING
    if isinstance(value, float) and fmt.is_number(value):
        return fmt.count(value) if value.is_integer() and abs(value) < 1e7 else fmt.significant(value)
    return fmt.truncate(str(value), 200)
