"""The untouched model on the pages: what training gains over it, and what it makes it forget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thresher.numeric.units import format_amount
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, Dots, Line, Mark, Note, Rule, Whiskers, linear_axis, log_axis
from thresher.reporting.page import Block, Figure, Paragraph, Table

WHAT = {
    "untouched": "the base model, untrained",
    "the adapter before": "the adapter that training continued, as it was",
    "majority class": "always the most frequent label of the training rows",
    "probe": "logistic regression on the vectors of the untouched encoder, from the same rows",
}
INTERVAL = f"95{fmt.PERCENT} interval"


def write_row_zero(base: Mapping[str, Any] | None) -> list[str]:
    """Return whether training pays, a sentence for each method of an experiment, or one."""
    if not base:
        return []
    if "methods" not in base:
        return [] if not base["sentence"] else [_finish(base["sentence"])]
    return [_finish(f"{method}: {entry['sentence']}") for method, entry in base["methods"].items()]


def build_references(base: Mapping[str, Any] | None, task: str) -> list[Block]:
    """Return the table of an adapter's references: their scores, and the gain of training."""
    if not base:
        return []
    cells = []
    for reference in base["references"]:
        for name, score in reference["scores"].items():
            display = replace(describe_score(name), task=task)
            gain = reference["gains"].get(name)
            cells.append((*_name_reference(reference), display.label, *_format_row(display, score, gain)))
    table = Table(
        caption="Without training, on the same held-out rows",
        columns=("reference", "what it is", "score", "value", "gain of training", INTERVAL),
        rows=cells,
        numeric=(3, 4, 5),
    )
    lenient = base.get("lenient_match")
    if not lenient:
        return [table]
    rate = fmt.MetricDisplay("share", is_higher_better=True, is_rate=True)
    scores = [(each["name"], each["lenient_match"]) for each in base["references"]] + [("trained", lenient)]
    said = ", ".join(f"{name} {rate.text(score['value'], score['stderr'])}" for name, score in scores if score)
    text = f"Answers that contain the expected number or words anywhere: {said}."
    return [table, Paragraph(text)]


def build_gains(base: Mapping[str, Any] | None, metric: fmt.MetricDisplay, unit: str = "rows") -> list[Block]:
    """Return the tables of an experiment: the references, and the gain at every size."""
    if not base:
        return []
    references = Table(
        caption="Without training, on the same test rows",
        columns=("reference", "what it is", metric.label),
        rows=[(*_name_reference(each), metric.text(each["value"], each["stderr"])) for each in base["references"]],
        numeric=(2,),
        text=(1,),
    )
    cells = [
        (
            method,
            fmt.count(gain["n_rows"]),
            gain.get("over", base["strongest"]),  # earlier versions named one for all sizes
            metric.difference(gain["value"]),
            metric.difference_range(gain["low"], gain["high"]),
            fmt.count(gain["n_seeds"]),
        )
        for method, entry in base["methods"].items()
        for gain in entry["gains"]
    ]
    gains = Table(
        caption="Gain of training over the best reference at each size, above zero if training is better",
        columns=("method", unit, "over", "gain", INTERVAL, "runs"),
        rows=cells,
        numeric=(1, 3, 4, 5),
    )
    return [references, gains]


def write_forgetting(general: Mapping[str, Any] | None) -> list[str]:
    """Return what training made the model forget, in sentences."""
    if not general:
        return []
    if "methods" not in general:
        return [] if not general["sentence"] else [_finish(f"the model {general['sentence']}")]
    return [_finish(f"{method}: {entry['sentence']}") for method, entry in general["methods"].items()]


def build_forgetting(general: Mapping[str, Any] | None) -> list[Block]:
    """Return what an adapter lost on general rows: by source, in answers, and the worst rows."""
    if not general or general["lost"] is None:
        return []
    by_source = Table(
        caption=f"Bits per byte on {fmt.count(general['rows'])} general rows, before and after training",
        columns=("rows", "before", "after", "lost", INTERVAL, "number"),
        rows=[
            _format_lost("all", general["before"]["value"], general["after"]["value"], general["lost"]),
            *(_format_lost(each["source"], each["before"], each["after"], each["lost"]) for each in general["sources"]),
        ],
        numeric=range(1, 6),
    )
    worst = Table(
        caption="Rows that worsened most, with the answers of both models",
        columns=("kind", "row", "lost", "expected", "before", "after"),
        rows=[
            (
                str(row["source"]),
                fmt.truncate(row["text"], 120),
                fmt.signed(row["lost"], 3),
                fmt.truncate(row["expected"] or fmt.NOTHING, 60),
                fmt.truncate(row["answer_before"] or fmt.NOTHING, 120),
                fmt.truncate(row["answer_after"] or fmt.NOTHING, 120),
            )
            for row in general["worst"]
        ],
        numeric=(2,),
        text=(1, 3, 4, 5),
    )
    return [by_source, *_describe_answers(general), worst]


def _format_lost(name: str, before: float, after: float, lost: Mapping[str, Any]) -> tuple[str, ...]:
    ends = f"{fmt.signed(lost['low'], 4)} to {fmt.signed(lost['high'], 4)}"
    return name, f"{before:.4f}", f"{after:.4f}", fmt.signed(lost["value"], 4), ends, fmt.count(lost["n"])


def _describe_answers(general: Mapping[str, Any]) -> list[Block]:
    rate = fmt.MetricDisplay("share", is_higher_better=True, is_rate=True)
    blocks: list[Block] = []
    questions, form = general["questions"], general["form"]
    if questions:
        before, after = (rate.text(questions[side]["value"], questions[side]["stderr"]) for side in ("before", "after"))
        n = fmt.count(questions["after"]["n"])
        blocks.append(
            Paragraph(f"Of {n} general questions, {before} were answered correctly before and {after} after.")
        )
    if form:
        before, after = (rate.text(form[side]) for side in ("before", "after"))
        blocks.append(
            Paragraph(
                f"The task's answers have a format: {form['form']}. General questions were answered in it in "
                f"{before} "
                f"of cases before and {after} after."
            )
        )
    return blocks


def build_front(scale: Mapping[str, Any] | None) -> list[Block]:
    """Return gain and forgetting of the adapter at shares of its strength, as chart and table."""
    if not scale:
        return []
    points = scale["points"]
    table = Table(
        caption="The adapter at partial strength",
        columns=("scale", "held-out loss", "gain (nats per token)", INTERVAL, "lost (bits per byte)", INTERVAL),
        rows=[
            (
                f"{each['scale']:g}" + (", saved" if each["scale"] == scale["scale"] else ""),
                f"{each['loss']:.4f}",
                *_format_ends(each["gain"]),
                *_format_ends(each["lost"]),
            )
            for each in points
        ],
        numeric=range(1, 6),
    )
    x, y = [each["lost"]["value"] for each in points], [each["gain"]["value"] for each in points]
    tips = tuple(
        f"scale {each['scale']:g}: gain {each['gain']['value']:.4f}, lost {b:.4f}"
        for each, b in zip(points, x, strict=True)
    )
    marks: list[Mark] = [
        Rule(at=scale["allowed"], tone="edge"),
        Line(tone="blue", x=x, y=y),
        Dots(tone="blue", x=x, y=y, tips=tips),
        *(Note(tone="ink", x=a, y=b, text=f"{each['scale']:g}") for a, b, each in zip(x, y, points, strict=True)),
    ]
    chart = Chart(
        x=linear_axis("lost on general rows (bits per byte)", min(x), max([*x, scale["allowed"]]), pad=0.05),
        y=linear_axis("gain on held-out rows (nats per token)", min(y), max(y), pad=0.05),
        marks=marks,
    )
    figure = Figure(
        name="scale",
        title="Gain and forgetting by adapter strength",
        caption="Each point is the adapter at partial strength; the vertical line is the acceptable forgetting.",
        alt="Gain versus forgetting at five strengths of the adapter; the table below has the numbers.",
        charts=(chart,),
        table=table,
    )
    return [figure]


def _format_ends(gain: Mapping[str, Any]) -> tuple[str, str]:
    return fmt.signed(gain["value"], 4), f"{fmt.signed(gain['low'], 4)} to {fmt.signed(gain['high'], 4)}"


def build_losses(general: Mapping[str, Any] | None, tones: Mapping[str, str], unit: str = "rows") -> list[Block]:
    """Return what the methods of an experiment forget by number of rows, drawn and in numbers.

    Args:
        general: section of the result; None where nothing was measured.
        tones: colors of the methods.
        unit: what the sizes count, in the plural.
    """
    if not general or not general["methods"]:
        return []
    cells = [
        (
            method,
            fmt.count(point["n_rows"]),
            *_format_ends(point["lost"]),
            {"lost": "more than allowed", "kept": "within the limit"}.get(point["verdict"], point["verdict"]),
        )
        for method, entry in general["methods"].items()
        for point in entry["points"]
    ]
    caption = (
        f"Bits per byte lost on {fmt.count(general['rows'])} general rows; {general['allowed']:g} is "
        f"acceptable; the untouched model needs {general['before']['value']:.4f}"
    )
    columns = ("method", unit, "lost", INTERVAL, "verdict")
    table = Table(caption=caption, columns=columns, rows=cells, numeric=(1, 2, 3))
    marks: list[Mark] = [Rule(at=general["allowed"], is_upright=False, tone="gray", label="allowed")]
    for method, entry in general["methods"].items():
        points, tone = entry["points"], tones.get(method, "ink")
        x, y = [float(point["n_rows"]) for point in points], [point["lost"]["value"] for point in points]
        at = [format_amount(round(size), unit) for size in x]
        tips = tuple(f"{method}, {size}: lost {lost:.4f}" for size, lost in zip(at, y, strict=True))
        low, high = ([point["lost"][end] for point in points] for end in ("low", "high"))
        marks += [Whiskers(tone=tone, at=x, low=low, high=high), Line(tone=tone, x=x, y=y, label=method)]
        marks.append(Dots(tone=tone, x=x, y=y, tips=tips))
    sizes = sorted({point["n_rows"] for entry in general["methods"].values() for point in entry["points"]})
    ends = [end for mark in marks if isinstance(mark, Whiskers) for end in (*mark.low, *mark.high)]
    chart = Chart(
        x=log_axis("training rows" if unit == "rows" else unit, sizes[0], sizes[-1], at=sizes),
        y=linear_axis("lost (bits per byte)", min([0.0, *ends]), max([general["allowed"], *ends])),
        marks=marks,
    )
    figure = Figure(
        name="forgetting",
        title=f"Forgetting by number of {'training rows' if unit == 'rows' else unit}",
        caption=f"Points are means over seeds with their 95{fmt.PERCENT} interval; the line is the acceptable "
        f"forgetting.",
        alt=f"Bits per byte lost by {len(general['methods'])} methods; the table below has the numbers.",
        charts=(chart,),
        table=table,
    )
    return [figure]


def describe_score(name: str) -> fmt.MetricDisplay:
    """Return how a metric of `metrics.json` is shown."""
    return fmt.MetricDisplay(name, is_higher_better=name not in ("loss", "perplexity"), is_rate=name in fmt.RATES)


def _format_row(
    display: fmt.MetricDisplay, score: Mapping[str, Any], gain: Mapping[str, Any] | None
) -> tuple[str, str, str]:
    text = display.text(score["value"], score["stderr"])
    if gain is None:
        return text, fmt.NOTHING, fmt.NOTHING
    if display.name == "chrf":  # scores go up to 100, gains up to 1
        gain = {name: value if value is None else 100 * value for name, value in gain.items()}
    return text, display.difference(gain["value"]), display.difference_range(gain["low"], gain["high"])


def _name_reference(reference: Mapping[str, Any]) -> tuple[str, str]:
    name = str(reference["name"])
    for known, what in WHAT.items():  # of a joint curve with the name of the model
        if name == known or name.startswith(f"{known} "):
            return name, what
    mean = reference.get("mean_shots")
    fitted = f", {mean:.1f} on average fit" if fmt.is_number(mean) and mean < reference["shots"] else ""
    return name, f"the base model with the nearest training rows in its prompt{fitted}"


def _finish(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}."
