"""The untouched model on the pages: gains, forgetting, and the strength of an adapter."""

import pytest

from thresher.reporting.pages.row_zero import (
    build_forgetting,
    build_front,
    build_losses,
    build_references,
    write_forgetting,
    write_row_zero,
)

HOSTILE = "<script>alert(1)</script>"


def gain(value):
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "stderr": 0.005, "n": 300, "n_seeds": 2}


def estimate(value):
    return {"value": value, "stderr": 0.01, "n": 300}


@pytest.fixture
def losses():
    points = [{"n_rows": n, "lost": gain(lost), "verdict": v} for n, lost, v in ((10, 0.0, "kept"), (20, 0.05, "lost"))]
    methods = {"random": {"points": points, "passes_at": 20, "sentence": "from 20 rows on it forgets more"}}
    return {"rows": 300, "allowed": 0.02, "before": estimate(0.9), "methods": methods}


def test_what_methods_forget_is_drawn_and_listed(losses):
    (figure,) = build_losses(losses, {"random": "gray"})
    assert [row[1] for row in figure.table.rows] == ["10", "20"]
    assert [row[-1] for row in figure.table.rows] == ["within the limit", "more than allowed"]
    (chart,) = figure.charts
    assert chart.y.low <= -0.01
    assert chart.y.high >= 0.06
    assert write_forgetting(losses) == ["Random: from 20 rows on it forgets more."]
    assert build_losses(None, {}) == write_forgetting(None) == []


def test_the_worst_rows_are_marked_as_text_of_the_user():
    worst = {"source": "facts", "text": HOSTILE, "lost": 1.0, "expected": HOSTILE}
    worst |= {"answer_before": HOSTILE, "answer_after": None}
    general = {"rows": 300, "before": estimate(1.0), "after": estimate(1.1), "lost": gain(0.1), "sources": []}
    general |= {"questions": None, "form": {"form": "JSON", "before": 0.0, "after": 0.5}, "worst": [worst]}
    table, form, rows = build_forgetting({**general, "sentence": "forgets more"})
    assert table.rows[0][:4] == ("all", "1.0000", "1.1000", "+0.1000")
    assert "JSON" in form.text
    assert {column for column, cell in enumerate(rows.rows[0]) if cell == HOSTILE} <= set(rows.text)
    assert write_forgetting({"sentence": "forgets more"}) == ["The model forgets more."]


def test_the_saved_scale_is_named():
    points = [{"scale": s, "loss": 2 - s, "gain": gain(s), "lost": gain(s / 10)} for s in (0.0, 0.5, 1.0)]
    (figure,) = build_front({"scale": 0.5, "points": points, "allowed": 0.02, "is_chosen": True})
    assert [row[0] for row in figure.table.rows] == ["0", "0.5, saved", "1"]
    assert build_front(None) == []


@pytest.mark.parametrize(("task", "unit"), [("classification", "loss (nats)"), ("sft", "loss (nats per token)")])
def test_a_loss_has_the_unit_of_its_task(task, unit):
    reference = {"name": "probe", "scores": {"loss": estimate(0.5)}, "gains": {"loss": gain(0.1)}}
    base = {"references": [reference], "sentence": "training pays"}
    (table,) = build_references(base, task)
    assert table.rows[0][2] == unit
    assert write_row_zero(base) == ["Training pays."]
