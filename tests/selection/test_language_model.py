"""Selection by a language model: rows it cannot score, its settings, its part in the identity."""

import json
import shutil

import numpy as np
import pytest

import thresher as th
from thresher.artifacts.manifest import digest
from thresher.errors import InputError
from thresher.features import compute, make_context
from thresher.selection.request import SelectCall, check_request

WORDS = ["shirt", "lamp", "phone", "garden", "oak", "steel", "red", "blue", "large", "small", "case", "toy", "cotton"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


def make_pairs(n=20):
    rows = [{"prompt": f"question {i} {WORDS[i % len(WORDS)]}", "completion": f"answer {i}"} for i in range(n)]
    rows[3]["prompt"] = "too long " * 300
    return rows


def test_a_row_that_the_model_cannot_score_is_dropped_with_its_reason(tiny_llama):
    subset = th.select(make_pairs(), "perplexity", budget=20, model=str(tiny_llama), device="cpu")
    assert len(subset) == 19
    assert subset.dropped["reason"].to_list() == ["excluded"]
    assert subset.dropped["line"].to_list() == [4]
    reason = "nothing of the response is within max_length"
    assert subset.dropped["explanation"].to_list() == [reason]
    assert subset.manifest.content["counts"]["excluded_by_reason"] == {reason: 1}
    notes = subset.manifest.content["feature_notes"]["loss"]
    assert (notes["rows"], notes["rows_missing"], notes["rows_truncated"]) == (20, 1, 0)


def test_difficulty_drops_rows_whose_prompt_does_not_help_and_keeps_the_hardest_others(tiny_llama):
    pool = th.load(make_pairs(40))
    context = make_context(model=str(tiny_llama), device="cpu", cache=None)
    features = compute(pool, ["loss", "loss_unconditional"], context)
    difficulty = features["loss"] / features["loss_unconditional"]
    subset = th.select(pool, "difficulty", budget=5, model=str(tiny_llama), device="cpu", order="rank")
    hardest = np.argsort(np.where(difficulty <= 1, -difficulty, np.inf))[:5]  # NaN compares false
    assert subset.kept.tolist() == hardest.tolist()
    counts = subset.manifest.content["counts"]
    assert counts["dropped_by_reason"]["excluded"] == 1 + (difficulty > 1).sum()
    assert sum(counts["excluded_by_reason"].values()) == counts["dropped_by_reason"]["excluded"]


def test_a_pool_of_which_nothing_is_left_is_refused(tiny_llama):
    rows = [{"prompt": "too long " * 300, "completion": f"answer {i}"} for i in range(3)]
    with pytest.raises(InputError, match="at least one row must be left, but all 3 are excluded \\(nothing of the"):
        th.select(rows, "perplexity", budget=2, model=str(tiny_llama), device="cpu")


def test_another_model_is_another_request(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    first, second = (
        th.select(make_pairs(), "perplexity", budget=5, model=str(folder), device="cpu").manifest
        for folder in (tiny_llama, tmp_path / "other")
    )
    assert first.identity != second.identity


def test_the_model_that_measures_rows_beside_the_pool_is_part_of_the_identity(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    pool = th.load(make_pairs())
    identities = []
    for options in ({"model": str(tiny_llama)}, {"model": str(tmp_path / "other")}, {"max_length": 32}):
        options = {"model": str(tiny_llama), "device": "cpu", "budget": 5, "target": pool.take(range(2)), **options}
        call = SelectCall.of_options(pool, "gradient", options, None)
        request = check_request(call, lambda: pool)  # as on a cluster, too
        assert "influence" in request.settings()["features"]
        identities.append(digest(request.identity()))
    assert len(set(identities)) == 3


def test_how_much_of_a_row_is_read_and_which_turns_reaches_the_model(tiny_llama):
    turns = [{"role": "user", "content": "add 1 and 2"}, {"role": "assistant", "content": "3"}]
    rows = [{"messages": [*turns, {"role": "user", "content": f"and {i}"}, *turns[1:]]} for i in range(6)]
    options = {"budget": 6, "model": str(tiny_llama), "device": "cpu"}
    values = {
        (max_length, loss_on): th.select(rows, "perplexity", max_length=max_length, loss_on=loss_on, **options)
        for max_length in (None, 60)
        for loss_on in ("last-assistant", "all-assistant")
    }
    about = {key: subset.manifest.content["features"]["loss"] for key, subset in values.items()}
    assert {(a["max_length"], a["loss_on"]) for a in about.values()} == {
        (limit, turns) for limit in ("512", "60") for turns in ("last-assistant", "all-assistant")
    }
    first, second = (values[None, turns].scores.value for turns in ("last-assistant", "all-assistant"))
    assert np.abs(first - second).max() > 1e-3
