"""Rewards against one row at a time in plain transformers."""

import shutil

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features import FeatureCache, compute, make_context

ROWS = [
    {
        "messages": [
            {"role": "user", "content": "add 2 and 3"},
            {"role": "assistant", "content": "5 ok " * (1 + i % 3)},
            {"role": "user", "content": f"and {i}?"},
            {"role": "assistant", "content": f"fox {i} runs"},
        ]
    }
    for i in range(7)
]


def save(model, folder, base):
    shutil.copytree(base, folder, dirs_exist_ok=True)
    for old in ("model.safetensors", "config.json"):
        (folder / old).unlink()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat_reward(tiny_llama, tmp_path_factory):
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(tiny_llama, num_labels=1)
    config.pad_token_id = None
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_config(config)
    return save(model, tmp_path_factory.mktemp("reward"), tiny_llama)


@pytest.fixture(scope="module")
def pair_reward(tiny_bert, tmp_path_factory):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = BertForSequenceClassification(BertConfig.from_pretrained(tiny_bert, num_labels=1))
    return save(model, tmp_path_factory.mktemp("pairs"), tiny_bert)


def score(rows, folder, **options):
    context = make_context(reward_model=str(folder), device="cpu", **{"cache": None, **options})
    return compute(th.load(rows), {"reward"}, context)["reward"]


def load_plain(folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_rewards_equal_one_conversation_at_a_time_on_the_chat_template(chat_reward):
    import torch

    model, tokenizer = load_plain(chat_reward)
    found = score(ROWS, chat_reward)
    for row, value in zip(ROWS, found, strict=True):
        ids = tokenizer.apply_chat_template(row["messages"], return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            assert value == pytest.approx(float(model(ids).logits[0, 0]), abs=1e-5)
    assert np.ptp(found) > 1e-4


def test_a_model_without_a_template_reads_pairs(pair_reward):
    import torch

    rows = [{"prompt": f"the apple {i}", "completion": "is red " * (1 + i % 2)} for i in range(5)]
    model, tokenizer = load_plain(pair_reward)
    for row, value in zip(rows, score(rows, pair_reward), strict=True):
        inputs = tokenizer(row["prompt"], row["completion"].strip(), return_tensors="pt")
        with torch.no_grad():
            assert value == pytest.approx(float(model(**inputs).logits[0, 0]), abs=1e-5)


def test_values_come_from_the_cache_and_serve_as_a_quality(chat_reward, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path)
    first = score(ROWS, chat_reward, cache=cache)

    def refuse(*args, **options):
        raise AssertionError("asked again")

    monkeypatch.setattr("thresher.features.answers.reward.RewardModel._forward", refuse)
    np.testing.assert_array_equal(score(ROWS, chat_reward, cache=cache), first)
    monkeypatch.undo()
    subset = th.select(
        th.load(ROWS),
        "quality-diversity",
        budget=1,
        settings={"quality": "reward", "alpha": 1.0},
        encoder="static",
        reward_model=str(chat_reward),
        device="cpu",
    )
    assert subset.kept.tolist() == [int(first.argmax())]


def test_the_end_of_a_long_row_is_read_and_counted(chat_reward):
    notes = []
    found = score(ROWS, chat_reward, max_length=12, on_progress=lambda progress: notes.append(progress.note))
    assert np.isfinite(found).all()
    assert any(note and "7 rows exceed its limit" in note for note in notes)


def test_a_model_with_several_outputs_and_none_at_all_are_refused(tiny_bert, tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig.from_pretrained(tiny_bert, num_labels=3))
    folder = save(model, tmp_path / "three", tiny_bert)
    rows = [{"prompt": "a", "completion": "b"}]
    with pytest.raises(InputError, match="must have one output, found 3"):
        score(rows, folder)
    with pytest.raises(InputError, match="reward: needs a reward model, found none.*--reward-model"):
        compute(th.load(rows), {"reward"}, make_context(cache=None))
