"""Rows that models are unsure of: where training moved them, and where their answers disagree."""

import math

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import ManifestError, SettingsError
from thresher.labeling.ask_plan import plan_asking
from thresher.labeling.scores import (
    describe_scores,
    fill_unknown,
    measure_change,
    measure_disagreement,
    open_adapter,
)
from thresher.labeling.settings import AskSettings
from thresher.models.generation.generator import Generation


@pytest.fixture(scope="module")
def adapter(tiny_bert, color_rows, tmp_path_factory):
    from thresher.trainer.settings import TrainSettings
    from thresher.trainer.train import train

    out = tmp_path_factory.mktemp("change") / "adapter"
    settings = TrainSettings(max_steps=4, max_length=16, precision="fp32", learning_rate=1e-2)
    train(color_rows, model=tiny_bert, settings=settings, out=out)
    return out


def test_change_is_the_divergence_of_what_is_said_before_and_after_training(adapter, color_rows):
    texts = [row["text"] for row in color_rows[:5]]
    opened = open_adapter(str(adapter))
    values = measure_change(opened, [*texts, texts[0]], device=None)
    table = opened.predict(texts)
    for text, value in zip(texts, values, strict=False):
        rows = table.filter(pl.col("text") == text)
        expected = sum(p * math.log(p / q) for p, q in zip(rows["adapter"], rows["base"], strict=True))
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert values[5] == values[0]
    assert values.max() > 1e-6


def test_rows_are_asked_for_by_change(adapter, color_rows, tmp_path):
    texts = [{"text": row["text"]} for row in color_rows]
    call = {"labeled": color_rows[:20], "encoder": "static", "batch": 6, "by": "change", "adapter": str(adapter)}
    asked = th.ask_labels(texts, out=tmp_path / "ask", **call)
    assert asked.content["by"] == "change"
    assert "; training changed the prediction for " in asked.content["answer"]
    assert len(asked.rows) == 6
    with pytest.raises(ManifestError, match="must be an adapter, found .asked."):
        th.ask_labels(texts, **{**call, "adapter": str(tmp_path / "ask")})


class Drawer:
    """Gives always the same answer for some texts, and another one each time for others."""

    name, fingerprint = "stub", "1"

    def generate(self, conversations, decoding, *, stage, context):
        return [[Generation(self.answer(each, i)) for i in range(decoding.n_samples)] for each in conversations]

    def answer(self, conversation, number):
        if "leaf" in conversation:
            return ["red", "green", "blue", "no idea", "Label: red."][number % 5]
        return "green" if number % 2 and "sky" in conversation else "red"


def test_disagreement_is_the_chance_that_two_answers_differ(monkeypatch, color_rows):
    monkeypatch.setattr("thresher.models.generation.load.load_generator", lambda context: Drawer())
    settings = AskSettings(n_samples=5)
    texts = ["the apple is red", "the leaf is green", "the sky is blue"]
    values = measure_disagreement(texts, ["blue", "green", "red"], settings, context=None)
    leaf = 1 - (2 / 5) ** 2 - 3 * (1 / 5) ** 2  # red twice; "no idea" is an answer of its own
    np.testing.assert_allclose(values, [0, leaf, 1 - (3 / 5) ** 2 - (2 / 5) ** 2])
    rows = [{"text": row["text"]} for row in color_rows]
    asked = th.ask_labels(
        rows, classes=("blue", "green", "red"), by="disagree", model="stub", encoder="static", batch=10
    )
    assert sum("leaf" in row["text"] for row in asked.rows) >= 5
    assert not any("apple" in row["text"] for row in asked.rows)
    n_unsure = sum("leaf" in row["text"] or "sky" in row["text"] for row in color_rows)
    told = f"; sampled answers differ on {n_unsure} of {len(rows)} rows"
    assert asked.content["answer"].endswith(told)


class Failer(Drawer):
    """Answers some texts once or not at all."""

    def generate(self, conversations, decoding, *, stage, context):
        lost = [Generation(None, problem="too long")] * (decoding.n_samples - 1)
        drawn = super().generate(conversations, decoding, stage=stage, context=context)
        return [
            [own[0], *lost] if "apple" in each else [lost[0], *lost] if "sky" in each else own
            for each, own in zip(conversations, drawn, strict=True)
        ]


def test_samples_that_failed_are_no_agreement(monkeypatch):
    monkeypatch.setattr("thresher.models.generation.load.load_generator", lambda context: Failer())
    settings = AskSettings(n_samples=5)
    texts = ["the apple is red", "the leaf is green", "the sky is blue", "the rose is red"]
    values = measure_disagreement(texts, ["blue", "green", "red"], settings, context=None)
    leaf = 1 - (2 / 5) ** 2 - 3 * (1 / 5) ** 2
    np.testing.assert_allclose(values, [np.nan, leaf, np.nan, 0])
    np.testing.assert_allclose(fill_unknown(values), [leaf / 2, leaf, leaf / 2, 0])
    assert describe_scores(values, "disagree") == (
        "sampled answers differ on 1 of 4 rows; 2 have fewer than two answers and count with the median"
    )


def test_a_way_and_the_model_that_it_asks_go_together(color_rows):
    rows = [{"text": row["text"]} for row in color_rows]
    with pytest.raises(SettingsError, match="--by disagree samples answers of a language model; name it with --model"):
        th.ask_labels(rows, by="disagree")
    with pytest.raises(SettingsError, match="--by change needs a classifier trained on the labels so far"):
        th.ask_labels(rows, by="change")
    with pytest.raises(SettingsError, match="adapter is only used by --by change, got --by cover"):
        th.ask_labels(rows, by="cover", adapter="x")


def test_a_dry_run_times_the_sampled_answers(color_rows, adapter):
    rows = [{"text": row["text"]} for row in color_rows]
    sampled = plan_asking(rows, by="disagree", model="tiny", encoder="static", n_samples=2)
    assert sampled.stages[0].stage == "label ask: sampled answers"
    assert sampled.stages[0].seconds > 0
    changed = plan_asking(rows, by="change", adapter=str(adapter), encoder="static")
    assert (changed.stages[-1].stage, changed.stages[-1].n) == ("predictions of the adapter", len(rows))
    assert changed.seconds is None
