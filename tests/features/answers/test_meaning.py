"""Meaning of answers: clusters by hand, and the entropy over them."""

import math

import numpy as np
import pytest

from thresher.features import make_context
from thresher.features.answers import meaning
from thresher.features.answers.entailment import Entailment
from thresher.features.answers.meaning import cluster_answers, compare_meaning, measure_entropy


@pytest.fixture(scope="module")
def context():
    return make_context(device="cpu", cache=None, encoder="static")


def test_an_answer_joins_the_first_cluster_that_says_the_same(monkeypatch, context):
    same = {("Paris", "the city of Paris"), ("Rome", "Roma")}

    def compare(pairs, context, *, entailment, stage):
        return np.array([pair in same or pair[::-1] in same for pair in pairs], dtype=bool)

    monkeypatch.setattr(meaning, "compare_meaning", compare)
    answers = [["Paris", "Rome", "the city of Paris", "Roma", "Paris"], ["Oslo"], []]
    clusters = cluster_answers(answers, context, entailment=None, stage="meaning")
    assert clusters == [[0, 1, 0, 1, 0], [0], []]
    entropy = measure_entropy(clusters)
    assert entropy[0] == pytest.approx(-(0.6 * math.log(0.6) + 0.4 * math.log(0.4)))
    assert entropy[1] == 0
    assert np.isnan(entropy[2])
    assert measure_entropy([[0, 1, 2, 3]])[0] == pytest.approx(math.log(4))


def test_the_same_words_say_the_same_and_cosines_decide_without_a_model(context):
    pairs = [("Paris!", "paris!"), ("a red apple", "an apple that is red"), ("a red apple", "interest rates fell")]
    assert compare_meaning(pairs, context, entailment=None, stage="meaning").tolist()[0::2] == [True, False]


def test_by_an_entailment_model_each_must_follow_from_the_other(tiny_nli, context, monkeypatch):
    judge = Entailment(str(tiny_nli), device="cpu")
    p = judge.predict_entailments([("a", "b"), ("b", "a")], stage="nli", context=context)
    q, _ = judge.predict_contradictions([("a", "b"), ("b", "a")], stage="nli", context=context)
    assert ((p > 0) & (p < 1)).all()
    assert not np.allclose(p, q)  # another label

    def predict(self, pairs, *, stage, context):
        return np.array([0.1 if pair == ("later", "sooner") else 0.9 for pair in pairs])

    monkeypatch.setattr(Entailment, "predict_entailments", predict)
    pairs = [("up", "upwards"), ("later", "sooner"), ("sooner", "later")]
    assert compare_meaning(pairs, context, entailment=str(tiny_nli), stage="nli").tolist() == [True, False, False]
