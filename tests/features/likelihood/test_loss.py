"""The loss features against plain forwards of single rows that find the response themselves."""

import json

import numpy as np
import pytest

import thresher as th
from thresher.cache import by_text
from thresher.errors import InputError, SettingsError
from thresher.features import FeatureCache, compute, make_context
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.tokenized_rows import PROBLEMS

ALL = ("loss", "loss_unconditional", "n_response_tokens", "n_truncated_tokens")
LIMIT = 512  # positions of the tiny models
WORDS = [
    "the",
    "fox",
    "jumps",
    "straße",
    "数学",
    "😀👩‍👩‍👧",
    "\n",
    "  ",
    "2+2=4",
    "don't",
    "<|im end|>",
    "\t",
    "é",
    "ok",
]


def turn(role, content):
    return {"role": role, "content": content}


def words(rng, n):
    return " ".join(rng.choice(WORDS, n)) + "."


def nasty_rows(n=200, seed=0, longest=25):
    """Rows of one turn and of several, of one token and of too many, in several scripts."""
    rng = np.random.default_rng(seed)
    special = [
        [turn("user", "x"), turn("assistant", "y")],
        [turn("user", "?"), turn("assistant", "\n\nstarts with white space")],
        [turn("user", "ends with a line break\n"), turn("assistant", " leading blank")],
        [turn("user", "😀"), turn("assistant", "👩‍👩‍👧")],
        [turn("user", "long answer"), turn("assistant", words(rng, 900))],
        [turn("user", words(rng, 900)), turn("assistant", "never reached")],
        [turn("system", "be brief"), turn("user", words(rng, 60)), turn("assistant", words(rng, 90))],
    ]
    rows = special[:]
    while len(rows) < n:
        conversation = [turn("system", words(rng, rng.integers(1, 9)))] if rng.random() < 0.3 else []
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            conversation.append(turn("user", words(rng, rng.integers(1, longest))))
            conversation.append(turn("assistant", words(rng, rng.integers(1, longest))))
        rows.append(conversation)
    return [{"messages": conversation} for conversation in rows]


def n_bytes(tokenizer, code):
    special = tokenizer.added_tokens_decoder.get(code)
    # a byte-level vocabulary writes each byte as one character
    return len(special.content.encode()) if special else len(tokenizer.convert_ids_to_tokens(code))


def reference(folder, conversation, *, loss_on="last-assistant", model=None):
    """Return what each feature must be, by one forward pass of one row, positions in bytes."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = model or AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text, spans = "", []
    for each in conversation:
        text += f"<|im_start|>{each['role']}\n"
        begin = len(text.encode())
        text += f"{each['content']}<|im_end|>"
        if each["role"] == "assistant":
            spans.append((begin, len(text.encode())))
        text += "\n"
    spans = spans if loss_on == "all-assistant" else spans[-1:]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ends = np.cumsum([n_bytes(tokenizer, code) for code in ids])
    starts = ends - [n_bytes(tokenizer, code) for code in ids]
    asked = [i for i in range(len(ids)) if any(starts[i] < end and ends[i] > begin for begin, end in spans)]
    here = [i for i in asked if i < LIMIT]
    if not here:
        return np.nan, np.nan, 0, len(asked)

    def nll(tokens, positions):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double()
        log_p = logits.log_softmax(-1)
        return -float(np.mean([float(log_p[i - 1, tokens[i]]) for i in positions]))

    alone = [tokenizer.eos_token_id, *(ids[i] for i in here)]  # the tiny tokenizer has no BOS
    return nll(ids[:LIMIT], here), nll(alone, range(1, len(alone))), len(here), len(asked) - len(here)


@pytest.fixture(scope="module")
def pool():
    return th.load(nasty_rows())


@pytest.fixture(scope="module")
def expected(tiny_llama, pool):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    return np.array([reference(tiny_llama, row["messages"], model=model) for row in pool.rows(range(len(pool)))]).T


def context(folder, **settings):
    return make_context(**{"model": str(folder), "device": "cpu", "cache": None, **settings})


def test_features_equal_a_plain_forward_of_one_row_at_a_time(tiny_llama, pool, expected):
    found = compute(pool, ALL, context(tiny_llama))
    for name, values in zip(ALL, expected, strict=True):
        np.testing.assert_allclose(found[name], values, atol=1e-4, rtol=0, err_msg=name)
    # there is something to tell apart
    assert np.nanmax(found["loss"]) - np.nanmin(found["loss"]) > 1


def test_all_assistant_turns_are_scored_on_request(tiny_llama):
    rows = nasty_rows(30, seed=5)
    found = compute(th.load(rows), ALL, context(tiny_llama, loss_on="all-assistant"))
    wanted = np.array([reference(tiny_llama, row["messages"], loss_on="all-assistant") for row in rows]).T
    for name, values in zip(ALL, wanted, strict=True):
        np.testing.assert_allclose(found[name], values, atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
def test_batch_size_and_padding_do_not_change_a_value(tiny_llama, pool, expected, batch_tokens):
    found = compute(pool, ["loss"], context(tiny_llama, batch_tokens=batch_tokens))
    np.testing.assert_allclose(found["loss"], expected[0], atol=1e-4, rtol=0)


def test_order_does_not_change_a_value(tiny_llama, pool, expected):
    order = np.random.default_rng(1).permutation(len(pool))
    for name, values in zip(ALL[:2], expected[:2], strict=True):
        found = compute(pool.take(order), [name], context(tiny_llama))
        np.testing.assert_allclose(found[name], values[order], atol=1e-4, rtol=0)


def test_a_row_without_a_scorable_token_is_missing_with_its_reason_and_never_zero(tiny_llama, pool, expected):
    found = compute(pool, ["loss", "n_response_tokens"], context(tiny_llama))
    at = next(i for i, row in enumerate(pool.rows(range(10))) if row["messages"][1]["content"] == "never reached")
    assert np.isnan(found["loss"][at])
    assert found["n_response_tokens"][at] == 0
    assert found.missing["loss"][at] == "nothing of the response is within max_length"
    is_missing = np.isnan(expected[0])
    assert found.missing["loss"].is_not_null().to_list() == is_missing.tolist()
    assert found.notes["loss"]["rows_missing"] == is_missing.sum()


def test_a_conversation_that_the_template_refuses_is_missing_with_its_reason(tiny_llama, tmp_path):
    import shutil

    shutil.copytree(tiny_llama, tmp_path / "m")
    template = (tmp_path / "m/chat_template.jinja").read_text()
    refuses = "{%- if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif -%}"
    (tmp_path / "m/chat_template.jinja").write_text(refuses + template)
    rows = [
        {"messages": [turn("system", "s"), turn("user", "a"), turn("assistant", "b")]},
        {"messages": [turn("user", "a"), turn("assistant", "b")]},
    ]
    found = compute(th.load(rows), ["loss"], context(tmp_path / "m"))
    assert found.missing["loss"].to_list() == ["the chat template refuses the conversation", None]
    assert np.isnan(found["loss"]).tolist() == [True, False]


def test_a_cut_response_is_scored_on_what_is_there_counted_and_told(tiny_llama, pool):
    events = []
    found = compute(
        pool, ["loss", "n_truncated_tokens"], context(tiny_llama, max_length=100, on_progress=events.append)
    )
    is_cut = (found["n_truncated_tokens"] > 0) & np.isfinite(found["loss"])
    notes = found.notes["loss"]
    assert is_cut.sum() == notes["rows_truncated"] > 5
    assert notes["tokens_truncated"] == found["n_truncated_tokens"][is_cut].sum()
    assert (found["loss"][is_cut] > 1).all()  # not taken for easy
    told = [event.note for event in events if event.note]
    assert told[0].startswith(f"loss: {notes['rows_truncated']} of 200 rows are longer than 100 tokens")
    assert told[1] == f"loss: {notes['rows_missing']} of 200 rows have no value: {PROBLEMS[1]}"


def test_the_whole_conversation_is_the_key_of_the_cache(tiny_llama, tmp_path):
    cache = FeatureCache(tmp_path)
    last = [turn("user", "and now?"), turn("assistant", "yes")]
    conversations = [last, [turn("system", "shout"), *last], [turn("user", "and now?"), turn("assistant", "no"), *last]]
    found = compute(
        th.load([{"messages": conversation} for conversation in conversations]),
        ["loss"],
        context(tiny_llama, cache=cache),
    )
    assert len(set(found["loss"].round(6))) == 3
    for conversation, value in zip(conversations, found["loss"], strict=True):
        again = compute(th.load([{"messages": conversation}]), ["loss"], context(tiny_llama, cache=cache))
        assert again["loss"].tolist() == [value]
        assert value == pytest.approx(reference(tiny_llama, conversation)[0], abs=1e-4)


@pytest.fixture
def rows_asked(monkeypatch):
    """Count the rows that a model is run on."""
    asked = []
    run = LanguageModel.start_log_probabilities

    def counted(self, inputs, at, targets):
        asked.append(len(inputs["input_ids"]))
        return run(self, inputs, at, targets)

    monkeypatch.setattr(LanguageModel, "start_log_probabilities", counted)
    return asked


def test_one_percent_new_rows_ask_the_model_about_one_percent(tiny_llama, tmp_path, rows_asked):
    cache, rows = FeatureCache(tmp_path), nasty_rows(200, seed=3, longest=6)[7:]
    first = compute(th.load(rows), ["loss"], context(tiny_llama, cache=cache))
    assert sum(rows_asked) == len(rows)
    rows_asked.clear()
    new = [{"messages": [turn("user", f"new {i}"), turn("assistant", "row")]} for i in range(2)]
    second = compute(th.load([new[0], *rows, new[1]]), ["loss"], context(tiny_llama, cache=cache))
    assert sum(rows_asked) == 2
    np.testing.assert_array_equal(second["loss"][1:-1], first["loss"])


def test_an_interrupted_run_continues_where_it_was(tiny_llama, tmp_path, monkeypatch, rows_asked):
    monkeypatch.setattr(by_text, "CHUNK_SECONDS", 0)
    cache, pool = FeatureCache(tmp_path), th.load(nasty_rows(100, seed=4, longest=6)[7:])
    here = context(tiny_llama, cache=cache, batch_tokens=800)
    whole = compute(pool, ["loss"], context(tiny_llama, batch_tokens=800))["loss"]
    rows_asked.clear()

    def stop(progress):
        if progress.done > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(pool, ["loss"], context(tiny_llama, cache=cache, batch_tokens=800, on_progress=stop))
    n_before, under_way = sum(rows_asked), rows_asked[-1]
    np.testing.assert_allclose(compute(pool, ["loss"], here)["loss"], whole, atol=1e-6)
    assert 30 < n_before < len(pool)
    assert (
        sum(rows_asked) == len(pool) + under_way
    )  # each batch was kept but the one that was start_log_probabilities ahead


def test_counting_tokens_runs_no_model(tiny_llama, pool, rows_asked):
    compute(pool, ["n_response_tokens", "n_truncated_tokens"], context(tiny_llama))
    assert rows_asked == []


def test_both_losses_load_the_weights_once(tiny_llama, monkeypatch):
    from transformers import AutoModelForCausalLM

    loaded = []
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *given, **named: loaded.append(1) or load(*given, **named)
    )
    compute(th.load(nasty_rows(10)), ["loss", "loss_unconditional"], context(tiny_llama))
    assert len(loaded) == 1


def with_bos(folder, place, *, template):
    import shutil

    from transformers import AutoTokenizer

    shutil.copytree(folder, place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.bos_token = "<|pad|>"
    tokenizer.chat_template = template(tokenizer.chat_template)
    tokenizer.save_pretrained(place)
    return place


@pytest.mark.parametrize("writes_bos", [False, True])
def test_bos_stands_before_both_passes_whether_or_not_the_template_writes_it(tiny_llama, tmp_path, writes_bos):
    import torch
    from transformers import AutoModelForCausalLM

    folder = with_bos(
        tiny_llama, tmp_path / "m", template=lambda text: "{{ bos_token }}" + text if writes_bos else text
    )
    found = compute(th.load([{"prompt": "2+2?", "completion": "4"}]), ALL, context(folder))
    lm = LanguageModel(str(folder), device="cpu")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    bos, answer = [0], lm.tokenizer("4<|im_end|>", add_special_tokens=False)["input_ids"]
    ask = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    prompt = lm.tokenizer(ask, add_special_tokens=False)["input_ids"]
    for name, before in (("loss", bos + prompt), ("loss_unconditional", bos)):
        with torch.no_grad():
            logits = model(torch.tensor([before + answer])).logits[0]
        log_p = logits.log_softmax(-1)[range(len(before) - 1, len(before) + len(answer) - 1), answer]
        assert found[name][0] == pytest.approx(-float(log_p.mean()), abs=1e-5)


def test_a_plain_text_is_all_response_and_has_no_unconditional_loss(tiny_llama):
    texts = ["a text", "x", "another text, a little longer 数学"]
    pool = th.load([{"text": text} for text in texts])
    found = compute(pool, ["loss", "n_response_tokens"], context(tiny_llama))
    lm = LanguageModel(str(tiny_llama), device="cpu")
    eos = lm.tokenizer.eos_token_id
    import torch

    for text, loss, n_scored in zip(texts, found["loss"], found["n_response_tokens"], strict=True):
        ids = [eos, *lm.tokenizer(text, add_special_tokens=False)["input_ids"], eos]
        with torch.no_grad():
            log_p = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert n_scored == len(ids) - 1
        assert loss == pytest.approx(-float(log_p[range(len(ids) - 1), ids[1:]].mean()), abs=1e-5)
    with pytest.raises(InputError, match="need a prompt and a response, found plain text"):
        compute(pool, ["loss_unconditional"], context(tiny_llama))


def test_a_label_is_the_answer_to_its_text(tiny_llama):
    labeled = [{"text": f"the sky {i}", "label": "weather" if i % 2 else "color"} for i in range(6)]
    conversations = [{"messages": [turn("user", row["text"]), turn("assistant", row["label"])]} for row in labeled]
    found = compute(th.load(labeled, schema="text-label"), ["loss"], context(tiny_llama))
    np.testing.assert_allclose(
        found["loss"], compute(th.load(conversations), ["loss"], context(tiny_llama))["loss"], atol=1e-6
    )


def test_what_determines_a_loss_is_in_its_fingerprint(tiny_llama, tmp_path):
    import shutil

    from thresher.features import fingerprints

    def found(folder=tiny_llama, **settings):
        return fingerprints(["loss"], context(folder, **settings))["loss"]["fingerprint"]

    shutil.copytree(tiny_llama, tmp_path / "copy")
    assert found(tmp_path / "copy") == found()
    assert len({found(), found(loss_on="all-assistant"), found(max_length=99), found(dtype="bfloat16")}) == 4
    config = json.loads((tmp_path / "copy/config.json").read_text())
    (tmp_path / "copy/config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert found(tmp_path / "copy") != found()


def test_a_template_for_rows_with_tools_is_in_the_fingerprint(tiny_llama, tmp_path):
    """transformers reads `additional_chat_templates`; that named tool_use is for tools."""
    import shutil

    from thresher.models.causal_lm.base_model import find_base
    from thresher.models.causal_lm.language_model import LanguageModel

    template = tmp_path / "copy/additional_chat_templates/tool_use.jinja"
    shutil.copytree(tiny_llama, tmp_path / "copy")
    template.parent.mkdir()
    seen = []
    for text in ("{{ messages }}", "{{ tools }}"):
        template.write_text(text)
        lm = LanguageModel(str(tmp_path / "copy"), device="cpu")
        assert lm.tokenizer.get_chat_template(tools=[{}]) == text
        seen.append((lm.fingerprint, find_base(tmp_path / "copy").fingerprint))
    assert all(one != other for one, other in zip(*seen, strict=True))


def test_a_model_that_is_replaced_before_it_is_loaded_is_refused(tiny_llama, tmp_path):
    """Its losses would be kept under the fingerprint of the model that was there before."""
    import shutil

    from thresher.models.causal_lm.language_model import LanguageModel

    shutil.copytree(tiny_llama, tmp_path / "copy")
    lm = LanguageModel(str(tmp_path / "copy"), device="cpu")
    assert lm.fingerprint
    config = tmp_path / "copy/config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(InputError, match="must stay as they are while it is used.*run the same command again"):
        _ = lm.model


def test_illegal_settings_are_refused_by_name_and_value():
    with pytest.raises(SettingsError, match="loss_on must be one of 'last-assistant', 'all-assistant', got 'all'"):
        make_context(loss_on="all")
    with pytest.raises(SettingsError, match="max_length must be a whole number of at least 2, got 1"):
        make_context(max_length=1)
