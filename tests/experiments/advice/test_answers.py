"""The answers, from what the steps are known to have shown."""

from types import SimpleNamespace

import pytest

from thresher.experiments.advice.answers import _answer_next


class Rows(list):
    """A pool or a subset, of which its length and counts are read."""

    manifest = SimpleNamespace(content={"counts": {"usable": 400}})


@pytest.mark.parametrize(
    ("verdict", "n_chosen", "is_told"), [("all", 400, True), ("all", 100, False), ("enough", 400, False)]
)
def test_more_rows_are_the_next_step_where_all_are_used_and_the_curve_rises(verdict, n_chosen, is_told):
    curve = SimpleNamespace(enough={"random": SimpleNamespace(verdict=verdict)})
    adapter = SimpleNamespace(path="out/adapter", metrics={"base": {"verdict": "better"}, "general": None})
    answer = _answer_next(Rows([0] * 400), curve, Rows([0] * n_chosen), adapter, [])
    assert answer.startswith("Use out/adapter; thresher tune looks for better settings")
    assert ("collect more rows: with all 400 the curve has not leveled off" in answer) is is_told
