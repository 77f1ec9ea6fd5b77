"""The page of an adapter: its scores on held-out rows, next to those of training on random rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.evaluation.held_out import describe_control, name_control
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import Block, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.figures.dot_plot import build_dot_plot
from thresher.reporting.pages.figures.loss_figure import build_loss_figure
from thresher.reporting.pages.figures.moved_layers import build_diagnosis
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.row_zero import (
    build_forgetting,
    build_front,
    build_references,
    describe_score,
    write_forgetting,
)
from thresher.trainer.untouched.summary import list_verdicts

KEYS = ("task", "model", "counts", "held_out", "control", "comparison", "runs")
MAX_CLASSES = 30  # in the figure, weakest first; the table has all
N_CONFUSIONS = 12


def build_adapter_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `train` wrote."""
    metrics = read_json(folder / "metrics.json", KEYS)
    content, losses, verdicts = manifest.content, build_loss_figure(folder), list_verdicts(metrics)
    return Page(
        kind="adapter",
        title=f"LoRA adapter for {metrics['model']['name']}, {fmt.rows(metrics['counts']['train']['rows'])}",
        answer=_write_sentence(verdicts[0]) if verdicts else _write_score(metrics),
        more=[
            *(_write_sentence(verdict) for verdict in verdicts[1:]),
            *([_write_score(metrics)] if verdicts else []),
            *write_forgetting(metrics.get("general")),
            *_write_remarks(metrics),
        ],
        tiles=_build_tiles(content, metrics),
        sections=[
            Section("Held-out scores", _build_scores(metrics)),
            Section("The untouched model", build_references(metrics.get("base"), metrics["task"])),
            Section("What it forgot", [*build_forgetting(metrics.get("general")), *build_front(metrics.get("scale"))]),
            Section("What moved", build_diagnosis(metrics.get("diagnosis"))),
            Section("Loss during training", () if losses is None else (losses,)),
            Section("Classes", _build_classes(folder, metrics)),
            Section("Training rows", _build_row_counts(metrics)),
            Section("Cost", _build_cost(content, metrics)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _format_estimate(name: str, estimate: Mapping[str, Any]) -> str:
    return describe_score(name).text(estimate["value"], estimate["stderr"])


def _display_compared(compared: Mapping[str, Any]) -> fmt.MetricDisplay:
    values, is_higher_better = [compared["subset"]["value"]], compared["is_higher_better"]
    return fmt.describe_metric(compared["metric"], values, is_higher_better=is_higher_better)


def _without_classes(held_out: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (held_out or {}).items() if name != "classes"}


def _write_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _write_score(metrics: Mapping[str, Any]) -> str:
    scores, compared = _without_classes(metrics["held_out"]), metrics["comparison"]
    if not scores:
        return "The adapter was trained but not evaluated: no rows were held out."
    if compared is None:
        name, score = next(iter(scores.items()))
        return f"The {fmt.readable_name(name)} is {_format_estimate(name, score)} on {_held_out_rows(score['n'])}."
    metric, ours = _display_compared(compared), compared["subset"]
    score = metric.text(ours["value"], ours["stderr"])
    text = f"The {fmt.readable_name(metric.name)} is {score} on {_held_out_rows(ours['n'])}"
    is_known = fmt.is_number(compared["difference"]["stderr"])
    return f"{text}." if is_known else f"{text}; the error of the difference from random rows is unknown."


def _held_out_rows(n: int) -> str:
    return f"{fmt.count(n)} held-out row{'' if n == 1 else 's'}"


def _write_remarks(metrics: Mapping[str, Any]) -> list[str]:
    sentences = []
    compared = metrics["comparison"]
    if compared is not None:
        n = len(compared["seeds"])
        sentences.append(
            f"The intervals are 95 % intervals, paired over held-out rows{f' and {n} seeds' if n > 1 else ''}."
            + ("" if n > 1 else " With one seed, they do not include the variance between seeds: run with --seeds 3.")
        )
    if metrics["settings"].get("early_stopping_patience") is not None and metrics["held_out"]:
        sentences.append(
            "Early stopping chose the checkpoint on these same rows, so the scores are slightly optimistic."
        )
    return sentences


def _build_tiles(content: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Tile]:
    tiles = []
    for name, score in list(_without_classes(metrics["held_out"]).items())[:2]:
        error = f"± {100 * score['stderr']:.1f}" if name in fmt.RATES and fmt.is_number(score["stderr"]) else ""
        tiles.append(Tile(_capitalize(fmt.readable_name(name)), describe_score(name).text(score["value"]), error))
    train = metrics["counts"]["train"]
    work = f"{fmt.count(train['tokens'])} tokens, {fmt.count(metrics['n_steps'])} steps"
    tiles.append(Tile("Trained on", fmt.rows(train["rows"]), work))
    tiles.append(Tile("Time", fmt.seconds(content["run"]["seconds"]), str(content["run"].get("device", ""))))
    return tiles


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def _build_scores(metrics: Mapping[str, Any]) -> list[Block]:
    names = list(_without_classes(metrics["held_out"]))
    if not names:
        return [Notice("No rows were held out. To evaluate the adapter, give thresher train --eval.")]
    sides = {"your rows": metrics["held_out"]}
    if metrics["control"] is not None and metrics["control"]["held_out"]:
        sides[name_control(metrics)] = metrics["control"]["held_out"]
    table = Table(
        caption=f"Scores ± one standard error, seed {metrics['seed']}",
        columns=("metric", *sides, "held-out rows"),
        rows=[
            (
                describe_score(name).label,
                *(_format_estimate(name, side[name]) for side in sides.values()),
                fmt.count(metrics["held_out"][name]["n"]),
            )
            for name in names
        ],
        numeric=range(1, 2 + len(sides)),
    )
    blocks: list[Block] = [table]
    rates = [name for name in names if name in fmt.RATES]
    if rates:
        title = f"Scores next to those of {name_control(metrics)}" if len(sides) > 1 else "Scores"
        points = {side: [scores[name] for name in rates] for side, scores in sides.items()}
        labels = [fmt.readable_name(name) for name in rates]
        blocks = [build_dot_plot("metrics", title, labels, points, table, unit="score (%)")]
    if metrics["comparison"] is not None:
        blocks.append(_build_comparison(metrics))
    return [*blocks, *_build_runs(metrics)]


def _build_comparison(metrics: Mapping[str, Any]) -> Table:
    compared = metrics["comparison"]
    beside = (
        describe_control(metrics)
        if metrics["control"].get("is_same")
        else "the same number of random rows from the pool"
    )
    metric, gap, seeds = _display_compared(compared), compared["difference"], compared["seeds"]
    error = f" ± {metric.amount(gap['stderr'])}" if fmt.is_number(gap["stderr"]) else ""
    named_seeds = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return Table(
        caption=f"{_capitalize(fmt.readable_name(metric.name))} next to {beside}, {named_seeds}",
        columns=("", "value"),
        rows=[
            ("your rows", metric.text(compared["subset"]["value"], compared["subset"]["stderr"])),
            (name_control(metrics), metric.text(compared["random"]["value"], compared["random"]["stderr"])),
            ("difference, paired", f"{metric.difference(gap['value'])}{error}"),
        ],
        numeric=(1,),
    )


def _build_runs(metrics: Mapping[str, Any]) -> list[Block]:
    """Return the scores of every run, where there are several seeds."""
    runs = [run for run in metrics["runs"] if run["held_out"]]
    if len({run["seed"] for run in runs}) < 2:
        return []
    names = list(_without_classes(runs[0]["held_out"]))
    cells = [
        (
            name_control(metrics) if run["role"] == "control" else "your rows",
            str(run["seed"]),
            *(_format_estimate(name, run["held_out"][name]) for name in names),
        )
        for run in runs
    ]
    columns = ("rows", "seed", *(describe_score(name).label for name in names))
    return [Table(caption="Every run", columns=columns, rows=cells, numeric=range(1, 2 + len(names)), is_folded=True)]


def _build_classes(folder: Path, metrics: Mapping[str, Any]) -> list[Block]:
    classes = (metrics["held_out"] or {}).get("classes")
    if not classes:
        return []
    control = ((metrics["control"] or {}).get("held_out") or {}).get("classes", {})
    names = sorted(classes, key=lambda name: (classes[name]["f1"]["value"] or 0.0, name))
    shown = names[:MAX_CLASSES]
    nothing = {"f1": {"value": None, "stderr": None, "n": 0}}
    sides = {"your rows": [classes[name]["f1"] for name in shown]}
    if control:
        sides[name_control(metrics)] = [control.get(name, nothing)["f1"] for name in shown]
    cells = [
        (
            fmt.truncate(name, 60),
            *(_format_estimate("f1", classes[name][part]) for part in ("precision", "recall", "f1")),
            *([describe_score("f1").text(control.get(name, nothing)["f1"]["value"])] if control else []),
            fmt.count(classes[name]["recall"]["n"]),
        )
        for name in names
    ]
    table = Table(
        caption="All classes, weakest first",
        columns=(
            "class",
            "precision",
            "recall",
            "F1",
            *([f"F1, {name_control(metrics)}"] if control else []),
            "held-out rows",
        ),
        rows=cells,
        numeric=range(1, 6),
    )
    more = f", the {MAX_CLASSES} weakest of {len(names)}" if len(names) > MAX_CLASSES else ""
    labels = [fmt.truncate(name, 40) for name in shown]
    figure = build_dot_plot("classes", f"F1 by class{more}", labels, sides, table, unit="F1 (%)")
    return [figure, *_build_confusions(folder)]


def _build_confusions(folder: Path) -> list[Block]:
    path = folder / "predictions.parquet"
    if not path.is_file():
        return []
    table = read_table(path, ("label", "prediction"))
    wrong = table.filter(pl.col("label") != pl.col("prediction"))
    if not len(wrong):
        return [Paragraph("Every held-out row is classified correctly.")]
    pairs = wrong.group_by("label", "prediction").len("n")
    pairs = pairs.sort("n", "label", "prediction", descending=[True, False, False]).head(N_CONFUSIONS)
    n_per_label = dict(table["label"].value_counts().iter_rows())
    return [
        Table(
            caption="Most frequent mistakes",
            columns=("true class", "predicted as", "rows", "of the class"),
            rows=[
                (fmt.truncate(label, 60), fmt.truncate(guess, 60), fmt.count(n), fmt.share(n, n_per_label[label]))
                for label, guess, n in pairs.iter_rows()
            ],
            numeric=(2, 3),
        )
    ]


def _build_row_counts(metrics: Mapping[str, Any]) -> list[Block]:
    counts = metrics["counts"]
    train, rejected = counts["train"], counts.get("unusable", {}).get("data", {})
    cells = [
        *((f"rejected: {reason}", fmt.count(n)) for reason, n in rejected.items()),
        ("given", fmt.count(counts["given"])),
        ("held out for evaluation", fmt.count(counts["held_out"])),
        ("left out: same text as a held-out row", fmt.count(counts["same_text_as_held_out"])),
        *((f"left out: {reason}", fmt.count(n)) for reason, n in train["rows_left_out"].items()),
        ("trained on", fmt.count(train["rows"])),
        *((f"of these: {note}", fmt.count(n)) for note, n in train.get("rows_with_markers", {}).items()),
        (
            "of these, truncated to the maximum length",
            f"{fmt.count(train['rows_truncated'])} ({fmt.count(train['tokens_cut'])} tokens)",
        ),
    ]
    return [Table(caption="Rows", columns=("rows", "number"), rows=cells, numeric=(1,))]


def _build_cost(content: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Block]:
    n, run = len(metrics["runs"]), content["run"]
    work = f"{n} run{'s' if n != 1 else ''} of training and evaluation"
    device = run.get("device", "an unnamed device")
    return [Paragraph(f"{work} took {fmt.seconds(run['seconds'])} on {device}.")]
