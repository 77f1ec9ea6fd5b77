"""Answers in batches against one row at a time, and drawn answers against a draw made by hand."""

import json
import shutil

import numpy as np
import orjson
import pytest

from thresher.cache import by_text
from thresher.errors import SettingsError
from thresher.features import FeatureCache, make_context
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import conversation_to_json, user_turn
from thresher.models.generation.load import load_generator
from thresher.models.generation.local import LocalGenerator
from thresher.models.generation.sampling import sample_uniforms

NEW = 12
TEXTS = [
    "the fox",
    "add 2 and 3:" + " please" * 40,
    "é 数学 😀",
    "x",
    "what is the capital of France?",
    *(f"{'jumps over ' * (i % 7)}the dog {i}" for i in range(20)),
]
TALKS = [user_turn(text) for text in TEXTS]
DRAWN = Decoding(n_samples=3, temperature=1.0, max_new_tokens=NEW)


def context(folder, **settings):
    return make_context(**{"model": str(folder), "device": "cpu", "cache": None, **settings})


def generate_texts(folder, conversations, decoding, **settings):
    here = context(folder, **settings)
    return LocalGenerator(here).generate(conversations, decoding, stage="answers", context=here)


@pytest.fixture(scope="module")
def model(tiny_llama):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        tiny_llama
    )


def by_hand(model, conversation, pick):
    """Return what the model says to one conversation, all tokens read again at each step."""
    import torch

    lm, tokenizer = model
    text = "".join(
        f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in orjson.loads(conversation)["messages"]
    )
    ids = tokenizer(text + "<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    new = []
    while len(new) < NEW and (not new or new[-1] != tokenizer.eos_token_id):
        with torch.no_grad():
            logits = lm(torch.tensor([ids + new])).logits[0, -1].double().numpy()
        new.append(int(pick(logits, len(new))))
    return tokenizer.decode(new, skip_special_tokens=True).strip(), new[-1] != tokenizer.eos_token_id


def drawn_by_hand(uniforms, temperature=1.0, top_p=1.0):
    def pick(logits, step):
        p = np.exp(logits / temperature - np.logaddexp.reduce(logits / temperature))
        order = np.argsort(-p)
        n_kept = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
        p[order[n_kept:]] = 0
        running = np.cumsum(p)
        return np.searchsorted(running, uniforms[step] * running[-1], side="right")

    return pick


def test_greedy_answers_equal_one_row_at_a_time_without_a_cache(tiny_llama, model):
    found = generate_texts(tiny_llama, TALKS, Decoding(max_new_tokens=NEW))
    expected = [by_hand(model, conversation, lambda logits, _: logits.argmax()) for conversation in TALKS]
    assert [(row[0].text, row[0].is_cut) for row in found] == expected
    assert len({text for text, _ in expected}) > 5


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.3, 0.6)])
def test_drawn_answers_equal_draws_made_by_hand(tiny_llama, model, temperature, top_p):
    decoding = Decoding(n_samples=3, temperature=temperature, top_p=top_p, max_new_tokens=NEW, seed=5)
    for conversation, row in zip(TALKS[:6], generate_texts(tiny_llama, TALKS[:6], decoding), strict=True):
        for uniforms, answer in zip(sample_uniforms(conversation, decoding, range(3)), row, strict=True):
            expected = by_hand(model, conversation, drawn_by_hand(uniforms, temperature, top_p))
            assert (answer.text, answer.is_cut) == expected


def test_answers_do_not_depend_on_batch_order_or_neighbors(tiny_llama):
    whole = generate_texts(tiny_llama, TALKS, DRAWN)
    order = np.random.default_rng(0).permutation(len(TALKS))
    shuffled = generate_texts(tiny_llama, [TALKS[i] for i in order], DRAWN, batch_tokens=600)
    assert [shuffled[list(order).index(i)] for i in range(len(TALKS))] == whole
    assert generate_texts(tiny_llama, TALKS[3:4], DRAWN, batch_tokens=1) == whole[3:4]


def test_drawn_tokens_have_the_frequencies_of_the_model(tiny_llama, model):
    import torch

    lm, tokenizer = model
    ids = tokenizer("<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        p = lm(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
    decoding = Decoding(n_samples=2000, temperature=1.0, max_new_tokens=1)
    here = context(tiny_llama)
    wanted = {user_turn("x"): [(i, i) for i in range(2000)]}
    values = next(LocalGenerator(here)._answer_batches(wanted, decoding, 10**6))
    counts = np.bincount(values.values[:, 0], minlength=len(p))
    assert (np.abs(counts / 2000 - p) < 5 * np.sqrt(p * (1 - p) / 2000) + 1e-3).all()


def test_more_samples_keep_the_first_ones_and_another_seed_changes_them(tiny_llama):
    few, many = (
        generate_texts(tiny_llama, TALKS[:4], Decoding(n_samples=n, temperature=1.0, max_new_tokens=NEW))
        for n in (2, 4)
    )
    assert [row[:2] for row in many] == few
    other = Decoding(n_samples=2, temperature=1.0, max_new_tokens=NEW, seed=1)
    assert generate_texts(tiny_llama, TALKS[:4], other) != few


def test_what_ends_an_answer_is_no_part_of_its_text(tiny_llama):
    """A tokenizer may not count the end of a turn among its special tokens."""
    here = context(tiny_llama)
    greedy = Decoding(max_new_tokens=NEW)
    who = LocalGenerator(here)
    (batch,) = who._answer_batches({TALKS[0]: [(0, 0)]}, greedy, 1000)
    ids = batch.values[0]
    at = next(i for i in range(1, NEW) if ids[i] not in ids[:i])
    who._stops = frozenset({int(ids[at])})
    (found,) = who.generate(TALKS[:1], greedy, stage="answers", context=here)[0]
    assert found.text == who.lm.tokenizer.decode(ids[:at], skip_special_tokens=True).strip()
    assert not found.is_cut


def test_a_prompt_without_room_and_one_that_the_template_refuses_are_told_apart(tiny_llama):
    conversations = [
        user_turn("long " * 600),
        user_turn("short"),
        conversation_to_json([{"role": "user", "content": None}]),
    ]
    found = generate_texts(tiny_llama, conversations, Decoding(max_new_tokens=NEW))
    assert [row[0].problem for row in found] == [
        "the prompt leaves no room for an answer within max_length",
        None,
        "the chat template refuses the conversation",
    ]
    assert found[0][0].text is None


def test_the_context_of_the_global_generator_does_not_matter(tiny_llama):
    import torch

    before = generate_texts(tiny_llama, TALKS[:3], DRAWN)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert generate_texts(tiny_llama, TALKS[:3], DRAWN) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupted_run_continues_where_it_was(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(by_text, "CHUNK_SECONDS", 0)
    cache, asked = FeatureCache(tmp_path), []
    generate = LocalGenerator._generate
    monkeypatch.setattr(
        LocalGenerator,
        "_generate",
        lambda self, prompts, *rest: asked.append(len(prompts)) or generate(self, prompts, *rest),
    )

    def stop(progress):
        if progress.done >= 8:
            raise KeyboardInterrupt

    settings = {"cache": cache, "batch_tokens": 400}
    with pytest.raises(KeyboardInterrupt):
        generate_texts(tiny_llama, TALKS, DRAWN, on_progress=stop, **settings)
    assert 0 < sum(asked) < len(TALKS)
    assert generate_texts(tiny_llama, TALKS, DRAWN, **settings) == generate_texts(tiny_llama, TALKS, DRAWN)
    assert sum(asked) == 2 * len(TALKS)  # each once with the cache, each once without


def test_more_samples_pay_for_the_new_ones_alone(tiny_llama, tmp_path, monkeypatch):
    asked = []
    generate = LocalGenerator._generate
    monkeypatch.setattr(
        LocalGenerator,
        "_generate",
        lambda self, prompts, n, *rest: asked.append(int(n.sum())) or generate(self, prompts, n, *rest),
    )
    few, many = (Decoding(n_samples=n, temperature=1.0, max_new_tokens=NEW) for n in (2, 5))
    cache = FeatureCache(tmp_path)
    first = generate_texts(tiny_llama, TALKS[:4], few, cache=cache)
    assert sum(asked) == 8
    found = generate_texts(tiny_llama, TALKS[:6], many, cache=cache)
    assert sum(asked) == 8 + 4 * 3 + 2 * 5
    assert [row[:2] for row in found[:4]] == first
    assert found == generate_texts(tiny_llama, TALKS[:6], many)


def test_generation_settings_of_a_model_count_for_nothing_but_its_ends(tiny_llama, tmp_path, caplog):
    """Limits, suppressed words and penalties were filled in from generation_config.json."""
    odd = tmp_path / "odd"
    shutil.copytree(tiny_llama, odd)
    wishes = {"min_length": 200, "suppress_tokens": [5, 6, 7], "repetition_penalty": 5.0, "do_sample": True, "top_k": 3}
    (odd / "generation_config.json").write_text(json.dumps(wishes))
    expected = generate_texts(tiny_llama, TALKS[:6], Decoding(max_new_tokens=NEW))
    assert generate_texts(odd, TALKS[:6], Decoding(max_new_tokens=NEW)) == expected
    assert not caplog.records


def test_what_ends_an_answer_by_the_adapters_own_settings_counts(tiny_llama, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(tiny_llama)})
    )
    plain = LocalGenerator(context(folder))
    before = plain._stops, plain.fingerprint
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    own = LocalGenerator(context(folder))
    assert {7, 9} <= own._stops
    assert not {7, 9} & before[0]
    assert own.fingerprint != before[1]


def test_cached_answers_load_no_weights(tiny_llama, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    first = generate_texts(tiny_llama, TALKS[:3], DRAWN, cache=FeatureCache(tmp_path))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert generate_texts(tiny_llama, TALKS[:3], DRAWN, cache=FeatureCache(tmp_path)) == first


def test_choices_are_the_shares_of_the_options_in_the_next_token(tiny_llama, model):
    import torch

    lm, tokenizer = model
    here = context(tiny_llama)
    found = load_generator(here).score_options(TALKS, ("A", "B"), stage="choices", context=here)
    a, b = (tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "AB")
    for text, share in zip(TEXTS, found.probabilities, strict=True):
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        with torch.no_grad():
            ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
            p = lm(ids).logits[0, -1].double().softmax(-1)
        assert share[0] == pytest.approx(float(p[a[0]] / (p[a[0]] + p[b[0]])), abs=1e-5)
        assert share.sum() == pytest.approx(1)
    assert found.problems == [None] * len(TALKS)


def test_options_that_begin_with_the_same_token_have_a_reason_and_no_share(tiny_llama):
    here = context(tiny_llama)
    found = load_generator(here).score_options(TALKS[:1], ("xA", "xB"), stage="choices", context=here)
    assert np.isnan(found.probabilities).all()
    assert found.problems == ["the model's tokenizer does not tell the options apart"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"n_samples": 2}, "temperature 0"), ({"top_p": 0.0}, "top_p"), ({"max_new_tokens": 0}, "max_new_tokens")],
)
def test_an_illegal_setting_is_refused_by_name(settings, named):
    with pytest.raises(SettingsError, match=named):
        Decoding(**settings)


def test_options_that_merge_with_the_end_of_the_prompt_are_asked_where_they_differ(tiny_llama, model, tmp_path):
    """Of "assistant: " and "the", the tokenizer makes ":" and " the"."""
    import torch

    lm, tokenizer = model
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }} assistant: ")
    here = context(folder)
    found = load_generator(here).score_options([user_turn("a")], ("the", "fox"), stage="choices", context=here)
    one, other = tokenizer(["a assistant: the", "a assistant: fox"], add_special_tokens=False)["input_ids"]
    n = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert n < len(tokenizer("a assistant: ", add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        p = lm(torch.tensor([one[:n]])).logits[0, -1].double().softmax(-1)
    assert found.probabilities[0, 0] == pytest.approx(float(p[one[n]] / (p[one[n]] + p[other[n]])), abs=1e-5)
