"""Confidence against sums made by hand, and the entailment model against one pair at a time."""

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError, SettingsError
from thresher.features import FeatureCache, compute, make_context
from thresher.features.answers import confidence
from thresher.features.answers.entailment import Entailment
from thresher.features.labels.class_probability import self_confidence
from thresher.features.settings import ConfidenceSettings
from thresher.models.encoders.load import load_encoder
from thresher.models.generation.generator import Generation, OptionProbabilities, conversation_to_json

ROWS = [
    {"prompt": "capital of France?", "completion": "Paris"},
    {"prompt": "capital of Italy?", "completion": "Berlin"},
    {"prompt": "add 2 and 3", "completion": "5"},
]


def context(**settings):
    return make_context(**{"device": "cpu", "cache": None, "encoder": "static", **settings})


class Scripted:
    """Answers from a table, and counts what it is asked."""

    name, fingerprint = "scripted", "f"

    def __init__(self, said, shares):
        self.said, self.probabilities, self.asked = said, shares, []

    def generate(self, conversations, decoding, *, stage, context):
        self.asked += ["answers"] * len(conversations)
        found = [
            next(said for word, said in self.said.items() if word in conversation) for conversation in conversations
        ]
        return [
            [Generation(text) if text is not None else Generation(None, problem="too long") for text in row]
            for row in found
        ]

    def score_options(self, conversations, options, *, stage, context):
        self.asked += ["choices"] * len(conversations)
        yes = np.array(
            [
                next(share for word, share in self.probabilities.items() if word in conversation)
                for conversation in conversations
            ]
        )
        problems = ["unparsable" if np.isnan(share) else None for share in yes]
        return OptionProbabilities(np.stack([yes, 1 - yes], axis=1), problems)

    def notes(self):
        return []


@pytest.fixture
def scripted(monkeypatch):
    def put(said, shares):
        who = Scripted(said, shares)
        monkeypatch.setattr(confidence, "load_generator", lambda context: who)
        return who

    return put


SAID = {"France": ["Paris", " Paris \n", "It is Rome"], "Italy": ["Rome", "Rome", ""], "add": ["5", "5", "five"]}


def test_confidence_is_the_weighted_sum_of_agreement_equality_and_reflection(scripted):
    scripted(SAID, {"France": 0.9, "Italy": 0.2, "add": 0.5})
    settings = ConfidenceSettings(alpha=0.6, beta=0.75)
    found = compute(th.load(ROWS), ["confidence"], context(confidence=settings))["confidence"]
    encoder = load_encoder("static")
    for row, answers, share, value in zip(ROWS, SAID.values(), (0.9, 0.2, 0.5), found, strict=True):
        terms = []
        for answer in answers:
            x, y = encoder.encode([row["completion"], answer])
            meaning = max(0.0, float(x @ y)) if answer else 0.0
            terms.append(0.6 * meaning + 0.4 * (answer.strip() == row["completion"]))
        assert value == pytest.approx(0.75 * np.mean(terms) + 0.25 * share, abs=1e-6)
    assert found[0] > found[1]


def test_a_weight_of_zero_asks_for_nothing(scripted):
    who = scripted(SAID, {"": 0.5})
    compute(th.load(ROWS), ["confidence"], context(confidence=ConfidenceSettings(beta=1.0)))
    assert set(who.asked) == {"answers"}
    who.asked.clear()
    compute(th.load(ROWS), ["confidence"], context(confidence=ConfidenceSettings(beta=0.0)))
    assert set(who.asked) == {"choices"}


def test_a_row_without_answer_or_verdict_is_missing_with_its_reason_and_never_one_half(scripted):
    scripted({**SAID, "France": [None, None, None]}, {"Italy": np.nan, "": 0.5})
    found = compute(th.load(ROWS), ["confidence"], context())
    assert found.missing["confidence"].to_list() == ["too long", "unparsable", None]
    assert np.isnan(found["confidence"]).tolist() == [True, True, False]
    assert found.notes["confidence"]["rows_missing"] == 2


def test_one_failed_sample_leaves_the_mean_over_the_others(scripted):
    scripted({**SAID, "add": ["5", None, "5"]}, {"": 1.0})
    settings = ConfidenceSettings(alpha=0.0, beta=1.0)
    assert compute(th.load(ROWS), ["confidence"], context(confidence=settings))["confidence"][2] == 1.0


def test_of_a_conversation_all_before_the_last_answer_is_asked(scripted):
    who = scripted({"": ["Rome"]}, {"": 0.5})
    conversation = [
        {"role": "user", "content": "capital of France?"},
        {"role": "assistant", "content": "Paris"},
        {"role": "user", "content": "and of Italy?"},
        {"role": "assistant", "content": "Rome"},
    ]
    conversations = []
    who.generate = lambda given, decoding, **_: conversations.extend(given) or [[Generation("Rome")]] * len(given)
    settings = ConfidenceSettings(alpha=0.0, beta=1.0)
    assert (
        compute(th.load([{"messages": conversation}]), ["confidence"], context(confidence=settings))["confidence"][0]
        == 1.0
    )
    assert conversations == [conversation_to_json(conversation[:3])]


def test_the_value_of_a_row_does_not_depend_on_the_others(tiny_llama, tmp_path):
    settings = {"model": str(tiny_llama), "confidence": ConfidenceSettings(n_samples=2, max_new_tokens=8)}
    whole = compute(th.load(ROWS), ["confidence"], context(**settings))["confidence"]
    assert ((whole > 0) & (whole < 1)).all()
    cache = FeatureCache(tmp_path)
    for i, row in enumerate(ROWS):
        found = compute(th.load([row]), ["confidence"], context(cache=cache, **settings))["confidence"]
        assert found[0] == pytest.approx(whole[i], abs=1e-5)


def test_labels_are_judged_by_their_cross_fitted_probability_and_no_language_model(color_rows, monkeypatch):
    monkeypatch.setattr(confidence, "load_generator", None)
    pool = th.load(color_rows)
    found = compute(pool, ["confidence"], context())
    expected = self_confidence(pool, context().resolved())
    np.testing.assert_array_equal(found["confidence"], expected.values)


def test_the_manifest_of_labels_names_no_language_model(color_rows, tmp_path):
    found = th.select(color_rows, "confidence", budget="50%", encoder="static", model="http://localhost:1/v1", seed=1)
    about = found.manifest.content["features"]["confidence"]
    assert about["encoder"].startswith("static")
    assert "localhost" not in str(about)
    assert "model" not in about


def test_plain_text_is_refused():
    with pytest.raises(InputError, match="confidence: rows need a prompt and a response, found plain text"):
        compute(th.load([{"text": "a"}, {"text": "b"}]), ["confidence"], context())


def test_settings_that_change_values_change_the_fingerprint(tiny_llama):
    from thresher.features import fingerprints

    def described(**settings):
        here = context(model=str(tiny_llama), confidence=ConfidenceSettings(**settings)).resolved()
        return fingerprints(["confidence"], here)["confidence"]["fingerprint"]

    found = [described(), described(alpha=0.5), described(beta=0.5), described(n_samples=2), described(seed=1)]
    assert len(set(found)) == len(found)
    assert described() == found[0]


PAIRS = [("the apple is red", "the leaf is green"), ("red", "the sky is blue " * 30), ("a", "a"), ("blue", "green sky")]


def test_contradictions_equal_one_pair_at_a_time(tiny_nli):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_nli).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_nli)
    found, n_cut = Entailment(str(tiny_nli), device="cpu").predict_contradictions(PAIRS, stage="nli", context=context())
    for pair, value in zip(PAIRS, found, strict=True):
        inputs = tokenizer(*pair, truncation="longest_first", max_length=64, return_tensors="pt")
        with torch.no_grad():
            assert value == pytest.approx(float(model(**inputs).logits.softmax(-1)[0, 0]), abs=1e-5)
    assert n_cut == 1
    assert np.ptp(found) > 0.01


def test_with_an_entailment_model_agreement_is_one_minus_contradiction_in_both_orders(scripted, tiny_nli):
    scripted(SAID, {"": 0.0})
    settings = ConfidenceSettings(alpha=1.0, beta=1.0, entailment=str(tiny_nli))
    found = compute(th.load(ROWS), ["confidence"], context(confidence=settings))["confidence"]
    judge = Entailment(str(tiny_nli), device="cpu")
    for row, answers, value in zip(ROWS, SAID.values(), found, strict=True):
        pairs = [(row["completion"], a) for a in answers] + [(a, row["completion"]) for a in answers]
        p, _ = judge.predict_contradictions(pairs, stage="nli", context=context())
        agreement = 1 - (p[:3] + p[3:]) / 2
        agreement[[not a.strip() for a in answers]] = 0
        assert value == pytest.approx(agreement.mean(), abs=1e-5)


def test_a_model_without_a_label_for_contradiction_is_refused_with_its_labels(tiny_bert):
    with pytest.raises(InputError, match="one label for contradiction, found the labels"):
        Entailment(str(tiny_bert), device="cpu").predict_contradictions(PAIRS, stage="nli", context=context())


def test_select_keeps_the_half_that_the_model_trusts(scripted):
    scripted(SAID, {"France": 0.9, "Italy": 0.2, "add": 0.8})
    subset = th.select(ROWS, "confidence", budget=2, encoder="static", settings={"beta": "0.0"})
    assert {row["prompt"] for row in subset.rows} == {"capital of France?", "add 2 and 3"}


def test_an_illegal_setting_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"confidence: alpha must be a number in 0\.\.1, got 2"):
        ConfidenceSettings(alpha=2)
