"""The page of an adapter: how it fares on held-out rows, beside one that was trained on as many random rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import Block, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.dot_plot import dot_plot
from thresher.reporting.pages.loss_figure import loss_figure
from thresher.reporting.pages.reproduce import reproduce
from thresher.reporting.wording import (
    RATES,
    MetricDisplay,
    count,
    cut,
    is_number,
    metric_of,
    plain_name,
    rows,
    seconds,
    share,
)

MAX_CLASSES = 30  # in the figure, the weakest first; the table has all
N_CONFUSIONS = 12
NORMAL_95 = 1.96  # standard errors on either side of a 95 % interval


def adapter_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `train` wrote."""
    metrics = read_json(
        folder / "metrics.json", ("task", "model", "counts", "held_out", "control", "comparison", "runs")
    )
    content, train, losses = manifest.content, metrics["counts"]["train"], loss_figure(folder)
    sections = [
        Section("Held-out scores", tuple(_scores(metrics))),
        Section("Loss during training", () if losses is None else (losses,)),
        Section("Classes", tuple(_classes(folder, metrics))),
        Section("The rows it learned from", tuple(_rows(metrics))),
        Section("Cost", tuple(_cost(content, metrics))),
        reproduce(manifest, folder),
    ]
    return Page(
        kind="adapter",
        title=f"LoRA adapter for {metrics['model']['name']}, {rows(train['rows'])}",
        answer=_answer(metrics),
        more=tuple(_more(metrics)),
        tiles=tuple(_tiles(content, metrics)),
        sections=tuple(section for section in sections if section.blocks),
        footer={"Made": content["run"]["started"], "thresher": content["versions"].get("thresher", "")},
    )


def display(name: str) -> MetricDisplay:
    """Return how a metric of `metrics.json` is shown."""
    return MetricDisplay(name, is_higher_better=name not in ("loss", "perplexity"), is_rate=name in RATES)


def _scored(held_out: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (held_out or {}).items() if name != "classes"}


def _answer(metrics: Mapping[str, Any]) -> str:
    compared = metrics["comparison"]
    scores = _scored(metrics["held_out"])
    if not scores:
        return "The adapter was trained, but not measured: no rows were held out."
    if compared is None:
        name, found = next(iter(scores.items()))
        text = display(name).text(found["value"], found["stderr"])
        return f"The {plain_name(name)} is {text} on {rows(found['n'])} that it was not trained on."
    shown = metric_of(compared["metric"], [compared["subset"]["value"]], is_higher_better=compared["is_higher_better"])
    ours, gap = compared["subset"], compared["difference"]
    text = f"The {plain_name(shown.name)} is {shown.text(ours['value'], ours['stderr'])} on {rows(ours['n'])} held out"
    if not is_number(gap["value"]) or not is_number(gap["stderr"]):
        return f"{text}; the difference to as many random rows has no error that could be told."
    reach = NORMAL_95 * gap["stderr"]
    ends = shown.difference_range(gap["value"] - reach, gap["value"] + reach)
    if abs(gap["value"]) <= reach:
        return f"{text}, which is no clear difference to as many random rows ({ends})."
    is_better = (gap["value"] > 0) == compared["is_higher_better"]
    size = shown.amount(abs(gap["value"]))
    return f"{text}: {size} {'better' if is_better else 'worse'} than as many random rows ({ends})."


def _more(metrics: Mapping[str, Any]) -> list[str]:
    sentences = []
    compared = metrics["comparison"]
    if compared is not None:
        n = len(compared["seeds"])
        sentences.append(
            f"The interval is 95 %, paired over held-out rows{f' and {n} seeds' if n > 1 else ''}."
            + ("" if n > 1 else " With one seed, the spread between seeds is not in it: give --seeds 3 to see it.")
        )
    if metrics["settings"].get("early_stopping_patience") is not None and metrics["held_out"]:
        sentences.append("Early stopping chose the weights on these same rows, so the scores are somewhat too good.")
    return sentences


def _tiles(content: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Tile]:
    tiles = []
    for name, found in list(_scored(metrics["held_out"]).items())[:2]:
        error = f"± {100 * found['stderr']:.1f}" if name in RATES and is_number(found["stderr"]) else ""
        tiles.append(Tile(_sentence_case(name), display(name).text(found["value"]), error))
    train = metrics["counts"]["train"]
    tiles.append(
        Tile("Trained on", rows(train["rows"]), f"{count(train['tokens'])} tokens, {count(metrics['n_steps'])} steps")
    )
    tiles.append(Tile("Time", seconds(content["run"]["seconds"]), str(content["run"].get("device", ""))))
    return tiles


def _sentence_case(name: str) -> str:
    text = plain_name(name)
    return text[0].upper() + text[1:]


def _sides(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    sides = {"these rows": metrics["held_out"] or {}}
    if metrics["control"] is not None and metrics["control"]["held_out"]:
        sides["random rows"] = metrics["control"]["held_out"]
    return sides


def _scores(metrics: Mapping[str, Any]) -> list[Block]:
    sides = _sides(metrics)
    names = list(_scored(metrics["held_out"]))
    if not names:
        return [Notice("No rows were held out: give --eval to thresher train to measure the adapter.")]
    cells = [
        (
            display(name).label,
            *(display(name).text(side[name]["value"], side[name]["stderr"]) for side in sides.values()),
            count(sides["these rows"][name]["n"]),
        )
        for name in names
    ]
    table = Table(
        caption=f"Scores ± one standard error, seed {metrics['seed']}",
        columns=("metric", *sides, "rows measured"),
        rows=tuple(cells),
        numeric=frozenset(range(1, 2 + len(sides))),
    )
    blocks: list[Block] = []
    rates = [name for name in names if name in RATES]
    if rates:
        title = "Scores beside those of random rows" if len(sides) > 1 else "Scores"
        blocks.append(
            dot_plot(
                "metrics",
                title,
                [plain_name(name) for name in rates],
                {side: [found[name] for name in rates] for side, found in sides.items()},
                table,
                unit="score (%)",
            )
        )
    else:
        blocks.append(table)
    if metrics["comparison"] is not None:
        blocks.append(_comparison(metrics["comparison"]))
    return [*blocks, *_each_seed(metrics)]


def _comparison(compared: Mapping[str, Any]) -> Table:
    shown = metric_of(compared["metric"], [compared["subset"]["value"]], is_higher_better=compared["is_higher_better"])
    gap = compared["difference"]
    error = gap["stderr"]
    n = len(compared["seeds"])
    seeds = f"seed{'s' if n > 1 else ''} {', '.join(map(str, compared['seeds']))}"
    return Table(
        caption=f"{_sentence_case(shown.name)} beside as many random rows of the pool, {seeds}",
        columns=("", "value"),
        rows=(
            ("these rows", shown.text(compared["subset"]["value"], compared["subset"]["stderr"])),
            ("random rows", shown.text(compared["random"]["value"], compared["random"]["stderr"])),
            (
                "difference, paired",
                f"{shown.difference(gap['value'])}" + (f" ± {shown.amount(error)}" if is_number(error) else ""),
            ),
        ),
        numeric=frozenset({1}),
    )


def _each_seed(metrics: Mapping[str, Any]) -> list[Block]:
    runs = [run for run in metrics["runs"] if run["held_out"]]
    if len({run["seed"] for run in runs}) < 2:
        return []
    names = list(_scored(runs[0]["held_out"]))
    return [
        Table(
            caption="Every run",
            columns=("rows", "seed", *(display(name).label for name in names)),
            rows=tuple(
                (
                    "random rows" if run["role"] == "control" else "these rows",
                    str(run["seed"]),
                    *(
                        display(name).text(run["held_out"][name]["value"], run["held_out"][name]["stderr"])
                        for name in names
                    ),
                )
                for run in runs
            ),
            numeric=frozenset(range(1, 2 + len(names))),
            is_folded=True,
        )
    ]


def _classes(folder: Path, metrics: Mapping[str, Any]) -> list[Block]:
    classes = (metrics["held_out"] or {}).get("classes")
    if not classes:
        return []
    control = ((metrics["control"] or {}).get("held_out") or {}).get("classes", {})
    names = sorted(classes, key=lambda name: (classes[name]["f1"]["value"] or 0.0, name))
    shown = names[:MAX_CLASSES]
    nothing = {"value": None, "stderr": None, "n": 0}
    sides = {"these rows": [classes[name]["f1"] for name in shown]}
    if control:
        sides["random rows"] = [control.get(name, {"f1": nothing})["f1"] for name in shown]
    rate = display("f1")
    cells = [
        (
            cut(name, 60),
            *(
                rate.text(classes[name][part]["value"], classes[name][part]["stderr"])
                for part in ("precision", "recall", "f1")
            ),
            *([rate.text(control.get(name, {"f1": nothing})["f1"]["value"])] if control else []),
            count(classes[name]["recall"]["n"]),
        )
        for name in names
    ]
    table = Table(
        caption="All classes, the weakest first",
        columns=("class", "precision", "recall", "F1", *(["F1, random rows"] if control else []), "held-out rows"),
        rows=tuple(cells),
        numeric=frozenset(range(1, 6)),
    )
    more = f", the {MAX_CLASSES} weakest of {len(names)}" if len(names) > MAX_CLASSES else ""
    labels = [cut(name, 40) for name in shown]
    figure = dot_plot("classes", f"F1 of each class{more}", labels, sides, table, unit="F1 (%)")
    return [figure, *_confusions(folder)]


def _confusions(folder: Path) -> list[Block]:
    path = folder / "predictions.parquet"
    if not path.is_file():
        return []
    table = read_table(path, ("label", "prediction"))
    wrong = table.filter(pl.col("label") != pl.col("prediction"))
    if not len(wrong):
        return [Paragraph("Every held-out row is classified correctly.")]
    pairs = (
        wrong.group_by("label", "prediction").len("n").sort("n", "label", "prediction", descending=[True, False, False])
    )
    of_label = dict(table["label"].value_counts().iter_rows())
    return [
        Table(
            caption="The most frequent mistakes",
            columns=("true class", "taken for", "rows", "of the class"),
            rows=tuple(
                (cut(label, 60), cut(guess, 60), count(n), share(n, of_label[label]))
                for label, guess, n in pairs.head(N_CONFUSIONS).iter_rows()
            ),
            numeric=frozenset({2, 3}),
        )
    ]


def _rows(metrics: Mapping[str, Any]) -> list[Block]:
    counts = metrics["counts"]
    train = counts["train"]
    cells = [
        *((f"set aside: {reason}", count(n)) for reason, n in counts.get("unusable", {}).get("data", {}).items()),
        ("given", count(counts["given"])),
        ("held out for measuring", count(counts["held_out"])),
        ("left out: same text as a held-out row", count(counts["same_text_as_held_out"])),
        *((f"left out: {reason}", count(n)) for reason, n in train["rows_left_out"].items()),
        ("learned from", count(train["rows"])),
        (
            "of these, cut at the greatest length",
            f"{count(train['rows_truncated'])} ({count(train['tokens_cut'])} tokens)",
        ),
    ]
    return [Table(caption="Rows", columns=("rows", "number"), rows=tuple(cells), numeric=frozenset({1}))]


def _cost(content: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Block]:
    n = len(metrics["runs"])
    text = (
        f"{n} run{'s' if n != 1 else ''} of training and measuring took {seconds(content['run']['seconds'])} "
        f"on {content['run'].get('device', 'an unnamed device')}."
    )
    return [Paragraph(text)]
