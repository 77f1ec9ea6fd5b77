"""The hidden feature against a plain forward of one row at a time."""

import numpy as np
import pytest

import thresher as th
from thresher.features import FeatureCache, compute, fingerprints, make_context
from thresher.features.likelihood import hidden_states as hidden_module
from thresher.models.causal_lm.tokenized_rows import PROBLEMS


def context(folder, **settings):
    return make_context(**{"model": str(folder), "device": "cpu", "cache": None, **settings})


def conversations(n=30, seed=0):
    rng = np.random.default_rng(seed)
    words = ["fox", "jumps", "straße", "数学", "😀", "2+2=4", "é", "ok"]

    def turn(role, longest):
        return {"role": role, "content": " ".join(rng.choice(words, rng.integers(1, longest))) + "."}

    rows = [[turn("user", 30), turn("assistant", 25)] * int(rng.choice([1, 2])) for _ in range(n - 2)]
    cut = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "ok " * 900}]
    lost = [{"role": "user", "content": "ok " * 900}, {"role": "assistant", "content": "never reached"}]
    return [{"messages": row} for row in (*rows, cut, lost)]


def plain(folder, rows):
    """Return the vectors from the whole model's last hidden states, row by row, in float64."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = []
    for row in rows:
        text = "".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in row["messages"])
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:512]
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].double().numpy()
        mean = sum((i + 1) * state for i, state in enumerate(states)) / sum(range(1, len(ids) + 1))
        vectors.append(mean / np.linalg.norm(mean))
    return np.array(vectors)


@pytest.mark.parametrize("batch_tokens", [50, 1000])
def test_vectors_are_position_weighted_means_of_the_last_hidden_states(tiny_llama, batch_tokens):
    rows = conversations()
    found = compute(th.load(rows), {"hidden_state"}, context(tiny_llama, batch_tokens=batch_tokens))
    assert found["hidden_state"].dtype == np.float32
    np.testing.assert_allclose(found["hidden_state"][:-1], plain(tiny_llama, rows[:-1]), atol=1e-5)


def test_a_row_without_a_response_token_has_its_reason_and_cut_rows_are_counted(tiny_llama):
    told = []
    found = compute(th.load(conversations()), {"hidden_state"}, context(tiny_llama, on_progress=told.append))
    assert np.isnan(found["hidden_state"][-1]).all()
    assert found.missing["hidden_state"].to_list() == [None] * 29 + [PROBLEMS[1]]
    assert found.notes["hidden_state"] == {"rows": 30, "rows_missing": 1, "rows_truncated": 1}
    assert any(each.note == "hidden_state: 1 of 30 rows are longer than 512 tokens" for each in told)


def test_a_pool_of_rows_without_responses_has_no_vectors(tiny_llama):
    found = compute(th.load(conversations()[-1:]), {"hidden_state"}, context(tiny_llama))
    assert np.isnan(found["hidden_state"]).all()


def test_a_second_run_reads_the_cache(tiny_llama, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path / "cache")
    rows = conversations()
    first = compute(th.load(rows), {"hidden_state"}, context(tiny_llama, cache=cache))
    monkeypatch.setattr(hidden_module, "weighted_means", lambda *a, **k: pytest.fail("the model was asked"))
    again = compute(th.load(rows[::-1]), {"hidden_state"}, context(tiny_llama, cache=cache))
    np.testing.assert_array_equal(again["hidden_state"], first["hidden_state"][::-1])
    assert again.missing["hidden_state"].to_list() == first.missing["hidden_state"].to_list()[::-1]


def test_plain_texts_and_classified_texts_have_vectors_too(tiny_llama):
    for rows in ([{"text": "the fox"}] * 2, [{"text": "the fox", "label": "ok"}] * 2):
        vectors = compute(th.load(rows), {"hidden_state"}, context(tiny_llama))["hidden_state"]
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_fingerprint_tells_what_was_read(tiny_llama):
    found = [fingerprints({"hidden_state"}, context(tiny_llama, max_length=n))["hidden_state"] for n in (None, 100)]
    assert found[0]["fingerprint"] != found[1]["fingerprint"]
    assert found[0]["model"] == str(tiny_llama)
