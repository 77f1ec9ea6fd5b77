"""The answers, from what the steps are known to have shown."""

from types import SimpleNamespace

import pytest

from thresher.experiments.advice.answers import _answer_next, _answer_worth


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


@pytest.mark.parametrize(
    ("method", "sentence", "told"),
    [
        ("random", "pays from 48 rows on: better", "Training on random rows pays from 48 rows on: better."),
        ("auto", "not shown to pay: with 9", "Training on rows chosen by auto is not shown to pay: with 9."),
        ("random", "never pays here: worse", "Training on random rows never pays here: worse."),
    ],
)
def test_without_an_adapter_the_curve_says_in_a_sentence_whether_training_pays(method, sentence, told):
    curve = SimpleNamespace(content={"base": {"methods": {method: {"sentence": sentence}}}})
    assert _answer_worth(curve, None) == told
