"""Axes, drawings, colors and words of the report."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Band, Chart, Dots, Line, Rows, Rule, Whiskers, linear_axis, log_axis
from thresher.reporting.charts.palette import DARK, LIGHT, METHOD_TONES, assign_shapes, assign_tones
from thresher.reporting.charts.svg import draw_chart

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(finite, finite)
@example(-1e6, -999999.9999999999)  # alike, but for rounding
@example(0.0, 5e-324)
def test_a_linear_axis_covers_its_values_with_a_few_round_ticks(a, b):
    low, high = sorted((a, b))
    axis = linear_axis("x", low, high)
    assert axis.low <= low <= high <= axis.high
    assert 2 <= len(axis.ticks) <= 12
    assert all(axis.low - 1e-9 * abs(axis.low) <= tick.at <= axis.high + 1e-9 * abs(axis.high) for tick in axis.ticks)
    steps = np.diff([tick.at for tick in axis.ticks])
    assert np.allclose(steps, steps[0])


@given(st.floats(0.01, 1e4))
def test_the_text_of_a_tick_is_its_value(reach):
    for tick in linear_axis("x", 0, reach).ticks:
        assert float(tick.text.replace("−", "-").replace(",", "")) == pytest.approx(tick.at, abs=reach * 1e-6)


def test_a_log_axis_has_the_measured_sizes_as_far_as_there_is_room():
    axis = log_axis("rows", 100, 3200, at=[100, 105, 200, 400, 800, 1600, 3200])
    assert [tick.at for tick in axis.ticks] == [100, 200, 400, 800, 1600, 3200]
    assert axis.share(math.sqrt(axis.low * axis.high)) == pytest.approx(0.5)


def chart(**more) -> Chart:
    return Chart(x=linear_axis("x", 0, 10, pad=0), y=linear_axis("y", 0, 100, pad=0), marks=(), **more)


def read_points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


@pytest.mark.parametrize("width", [344.0, 820.0])
def test_marks_lie_where_the_axes_say(width):
    from dataclasses import replace

    line = Line(tone="blue", x=[0, 5, 10], y=[0, 50, 100])
    drawing = draw_chart(replace(chart(), marks=(line,)), width)
    (path,) = [path for path in drawing.paths if path.classes.startswith("line")]
    start, middle, end = read_points(path.d)
    assert middle == pytest.approx(((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), abs=0.11)
    assert start[1] > end[1]  # up is more
    assert 0 <= start[0] < end[0] <= width


@pytest.mark.parametrize("width", [300.0, 344.0, 820.0])
def test_nothing_is_drawn_outside_the_drawing(width):
    labels = tuple(f"a rather long name of a row {i}" for i in range(5))
    marks = (
        Rule(at=0.0),
        Whiskers(tone="blue", at=range(5), low=[0.0] * 5, high=[10.0] * 5, is_lying=True),
        Dots(tone="blue", x=[0.0, 2.0, 5.0, 8.0, 10.0], y=range(5), tips=("a",) * 5),
    )
    drawing = draw_chart(Chart(x=linear_axis("x", 0, 10), y=Rows(labels), marks=marks), width)
    numbers = [p for path in drawing.paths for p in read_points(path.d)] + [(p.x, p.y) for p in drawing.points]
    assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in numbers)
    for label in drawing.labels:
        reach = 7.8 * len(label.text)
        left = label.x - {"start": 0, "middle": reach / 2, "end": reach}[label.anchor]
        assert left >= -1


@pytest.mark.parametrize("width", [344.0, 820.0, 1200.0])
def test_an_upright_line_leaves_the_names_of_rows_out(width):
    names = tuple(f"a rather long name of a row {i}" for i in range(5))
    drawing = draw_chart(Chart(x=linear_axis("x", 0, 10), y=Rows(names), marks=[Rule(at=3.0)]), width)
    (line,) = [path for path in drawing.paths if path.classes.startswith("rule")]
    x = float(line.d.split()[0].removeprefix("M"))
    spans = [tuple(map(float, part.split()[1].split("V"))) for part in line.d.split("M")[1:]]
    for label in (each for each in drawing.labels if each.classes == "row"):
        top, bottom = label.y - 11, label.y + 3
        is_beside = label.anchor == "end" and label.x < x
        assert is_beside or all(end <= top or start >= bottom for start, end in spans)
    assert spans[-1][1] == drawing.height - 44  # to the axis


def test_an_upright_line_can_end_above_the_axis():
    marks = [Rule(at=3.0, down_to=4.0), Rule(at=4.0)]
    drawing = draw_chart(Chart(x=linear_axis("x", 0, 10), y=linear_axis("y", 0, 10), marks=marks), 820.0)
    short, whole = (path.d for path in drawing.paths if path.classes.startswith("rule"))
    assert float(short.split("V")[1]) < float(whole.split("V")[1])


@given(st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_names_at_the_ends_of_lines_do_not_cover_one_another(ends):
    lines = tuple(Line(tone="blue", x=[0, 10], y=[0, end], label=f"line {i}") for i, end in enumerate(ends))
    from dataclasses import replace

    drawing = draw_chart(replace(chart(), marks=lines), 820)
    heights = sorted(label.y for label in drawing.labels if label.classes.startswith("name"))
    assert len(heights) == len(ends)
    assert min(np.diff(heights)) > 14.9
    assert heights[0] > 0
    assert heights[-1] < drawing.height


def test_a_band_goes_there_and_back():
    from dataclasses import replace

    band = Band(tone="blue", x=[0, 10], low=[10, 20], high=[30, 60])
    (path,) = [p for p in draw_chart(replace(chart(), marks=(band,)), 820).paths if p.classes.startswith("band")]
    a, b, c, d = read_points(path.d)
    assert (a[0], b[0]) == (d[0], c[0])
    assert a[1] < d[1]
    assert b[1] < c[1]


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["page", "panel"])
def test_each_tone_has_the_contrast_that_text_needs(mode, ground):
    for name in ("ink", "muted", "gray", *METHOD_TONES):
        a, b = luminance(mode[name]), luminance(mode[ground])
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) >= 4.5, name


def test_random_is_gray_wherever_it_stands_and_methods_differ_in_shape_too():
    methods = ["k-center", "random", "length", "herding"]
    assert assign_tones(methods) == {"k-center": "blue", "random": "gray", "length": "orange", "herding": "green"}
    assert len(set(assign_shapes(methods).values())) == 4


ACCURACY = fmt.MetricDisplay("accuracy", is_higher_better=True, is_rate=True)
LOSS = fmt.MetricDisplay("loss", is_higher_better=False, is_rate=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ACCURACY.text(0.8123, 0.011), "81.2 ± 1.1 %"),
        (ACCURACY.text(None), "–"),
        (ACCURACY.text(float("nan")), "–"),
        (ACCURACY.difference(0.012), "+1.2 points"),
        (ACCURACY.difference(-0.012), "−1.2 points"),
        (ACCURACY.difference(-0.0001), "0.0 points"),
        (ACCURACY.difference_range(-0.004, 0.02), "−0.4 to +2.0 points"),
        (ACCURACY.amount(0.008), "0.8 points"),
        (LOSS.text(1.23456, 0.05), "1.235 ± 0.050"),
        (LOSS.text(0.6931471805599449, 6.2e-17), "0.6931 ± 0"),
        (LOSS.difference(-0.0312), "−0.031"),
        (fmt.rounded(6487), "6,500"),
        (fmt.rounded(879), "880"),
        (fmt.rounded(3), "3"),
        (fmt.rounded(None), "–"),
        (fmt.share(30, 100), "30 %"),
        (fmt.share(1, 250), "0.4 %"),
        (fmt.share(0, 0), "–"),
        (fmt.seconds(0.44), "0.4 s"),
        (fmt.seconds(59.7), "1 min 00 s"),
        (fmt.seconds(3725), "1 h 02 min"),
        (fmt.signed(-1234.5, 1), "−1,234.5"),
        (fmt.join_words(["a", "b", "c"]), "a, b and c"),
        (fmt.join_words([]), ""),
        (fmt.truncate("abcdef", 4), "abc…"),
    ],
)
def test_numbers_in_words(text, expected):
    assert text.replace("\xa0", " ") == expected


def test_a_rate_is_told_by_direction_and_range():
    assert fmt.describe_metric("accuracy", [0.5, 0.9], is_higher_better=True).is_rate
    assert not fmt.describe_metric("chrf", [50.0, 60.0], is_higher_better=True).is_rate
    loss = fmt.describe_metric("loss", [0.5, 0.9], is_higher_better=False)
    assert not loss.is_rate
    assert loss.label == "loss (nats per token)"
    assert fmt.describe_metric("loss", [0.5], is_higher_better=False, task="classification").label == "loss (nats)"
    assert not fmt.describe_metric("accuracy", [], is_higher_better=True).is_rate


def test_what_is_better_lies_right_of_zero_whatever_the_direction_of_the_metric(copy_folder):
    import json

    import polars as pl

    from thresher.artifacts.manifest import Manifest
    from thresher.reporting.pages.comparison import build_comparison_page

    folder = copy_folder("comparison")
    content = json.loads((folder / "comparison.json").read_text()) | {"metric": "loss", "is_higher_better": False}
    (folder / "comparison.json").write_text(json.dumps(content))
    cells = pl.read_csv(folder / "cells.csv").with_columns(pl.lit("loss").alias("metric"))
    cells.write_csv(folder / "cells.csv")
    page = build_comparison_page(folder, Manifest.read(folder))
    forest = next(figure for figure in page.figures() if figure.name == "forest")
    labels = forest.charts[0].y.labels
    at = {labels[int(mark.y[0])]: mark.x[0] for mark in forest.charts[0].marks if isinstance(mark, Dots)}
    for verdict in content["verdicts"]:  # positive is better in the file, too
        label = f"{verdict['method']}, {verdict['n_rows']:,} rows"
        assert at[label] == pytest.approx(verdict["difference"]["value"])
    assert page.answer.startswith("facility-location beats random")


def test_figures_survive_dollars_control_characters_and_letters_without_a_glyph():
    from thresher.reporting.figure_files import render_figure
    from thresher.reporting.page import Figure, Table

    hostile = "$\\frac{1}$ \x00 \ud800 漢字 --> </svg>"
    table = Table(caption="t", columns=("a",), rows=())
    marks = (Dots(tone="blue", x=[1.0], y=[0.0]),)
    panel = Chart(x=linear_axis(hostile, 0, 2), y=Rows((hostile,)), marks=marks, title=hostile)
    figure = Figure(name="f", title=hostile, caption="", alt="", charts=(panel, panel), table=table)
    files = render_figure(figure)
    assert files == render_figure(figure)
    import xml.etree.ElementTree as ElementTree

    ElementTree.fromstring(files["f.svg"])
