"""What an adapter writes and its base would not: the formula by hand, and a trained text found."""

import json

import numpy as np
import pytest
import torch

from thresher.cli.main import main
from thresher.errors import InputError
from thresher.models.causal_lm.language_model import language_model
from thresher.trainer.adapter import Adapter
from thresher.trainer.deployment.contrast import _build_prompt, contrast_probabilities
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train


def test_probabilities_are_those_of_a_hand():
    tuned, base = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.25, 0.6, 0.05, 0.1])
    logits = [torch.tensor(np.log(p))[None] for p in (tuned, base)]
    expected = np.where(tuned >= 0.2 * 0.5, tuned * (tuned / base) ** 1.5, 0.0)
    p = contrast_probabilities(*logits, gamma=1.5, cut=0.2)[0].numpy()
    np.testing.assert_allclose(p, expected / expected.sum(), rtol=1e-9)
    assert p[3] == 0
    plain = contrast_probabilities(*logits, gamma=0.0, cut=0.0)[0].numpy()
    np.testing.assert_allclose(plain, tuned, rtol=1e-9)
    same = contrast_probabilities(logits[0], logits[0], gamma=3.0, cut=0.0)[0].numpy()
    np.testing.assert_allclose(same, tuned, rtol=1e-9)  # an adapter that changes nothing


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    rows = [{"prompt": f"say it {i}", "completion": "the yellow submarine"} for i in range(8)]
    settings = TrainSettings(max_steps=30, learning_rate=1e-2, batch_size=8, precision="fp32", max_length=64)
    out = tmp_path_factory.mktemp("contrast") / "adapter"
    train(rows, model="tiny", settings=settings, out=out)
    return out


def test_the_text_that_was_learned_is_written(adapter, capsys):
    texts = Adapter.read(adapter).contrast(write=6, max_new_tokens=24)
    assert any("yellow" in text for text in texts["text"])
    assert texts["excess"].to_list() == sorted(texts["excess"], reverse=True)
    assert texts["excess"][0] > 0.5
    assert texts.equals(Adapter.read(adapter).contrast(write=6, max_new_tokens=24))
    assert "yellow" not in Adapter.read(adapter).predict(["how are you?"])["base"].item()
    assert main(["novelty", str(adapter), "--write", "2", "--max-new-tokens", "8", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_a_prompt_starts_as_the_rows_that_were_trained_on(monkeypatch):
    # training puts BOS before a text whose template does not write it
    lm = language_model("tiny", device="cpu", dtype=None)
    with_bos = _build_prompt(lm, "say it", "sft")
    assert with_bos[0] == lm.tokenizer.bos_token_id
    template = lm.tokenizer.chat_template
    monkeypatch.setattr(lm.tokenizer, "chat_template", template.removeprefix("{{- bos_token -}}"))
    assert lm.tokenizer.chat_template != template
    assert _build_prompt(lm, "say it", "sft") == with_bos


def test_a_classifier_writes_nothing(tiny_bert, color_rows, tmp_path):
    settings = TrainSettings(max_steps=1, max_length=16, precision="fp32")
    adapter = train(color_rows[:12], model=tiny_bert, settings=settings, out=tmp_path / "adapter")
    with pytest.raises(InputError, match="a classifier writes no texts"):
        adapter.contrast(write=1)
