"""Turn markers in the texts of rows: never obeyed, never learned twice."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.models.causal_lm.families import FAMILIES
from tests.models.causal_lm.test_families import build_tokenizer
from thresher.dataset import load
from thresher.models.causal_lm.chat_template import prepare_template, render, render_prompt
from thresher.models.causal_lm.template_text import write_text
from thresher.models.causal_lm.turn_markers import (
    ESCAPED,
    FOREIGN,
    HAD_END,
    HOLDS_MARKERS,
    KEPT,
    STRIPPED,
    clean_text,
    find_markers,
)
from thresher.trainer.engine.tokenization import IGNORED, tokenize

PAIR = [{"role": "user", "content": "How is it?"}, {"role": "assistant", "content": "It is closed."}]
TALK = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "bye"},
    {"role": "assistant", "content": "see you"},
]


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def tokenizer(family, tiny_llama):
    return build_tokenizer(family, tiny_llama)


def show(tokenizer, messages, **options):
    return render(tokenizer, messages, None, loss_on="all-assistant", **options)


def templated(tokenizer, messages):
    """Return a conversation as a row whose texts are in the template already."""
    prompt = write_text(tokenizer, messages[:-1], None, add_generation_prompt=True).replace(
        "<think>\n\n</think>\n\n", ""
    )
    answer = messages[-1]["content"] + tokenizer.eos_token
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def test_the_token_that_ends_an_answer_is_learned_once(tokenizer):
    plain = show(tokenizer, PAIR)
    for end in (tokenizer.eos_token, f"{tokenizer.eos_token}\n", tokenizer.eos_token * 2):
        ended = [PAIR[0], {**PAIR[1], "content": PAIR[1]["content"] + end}]
        shown = show(tokenizer, ended)
        assert (shown.text, shown.spans, shown.note) == (plain.text, plain.spans, HAD_END)


@pytest.mark.parametrize("place", ["user", "assistant", "system", "tool"])
def test_markers_in_a_text_are_refused_read_as_text_or_taken_off(tokenizer, family, place):
    marker = family.eos
    if place == "system" and not family.has_system:
        pytest.skip("the template takes no system turn")
    words = f"what is {marker} in {family.special[0]}user?"
    if place in ("user", "assistant"):
        messages = [{**each, "content": words if each["role"] == place else each["content"]} for each in PAIR]
    else:
        messages = [{"role": "system", "content": words}, *PAIR]
    tools = [{"name": "look", "description": words}] if place == "tool" and family.has_tools else None
    messages = PAIR if tools else messages
    if place == "tool" and not tools:
        pytest.skip("the template shows no tools")
    refused = render(tokenizer, messages, tools, loss_on="all-assistant")
    assert (refused.text, refused.spans, refused.problem) == ("", (), HOLDS_MARKERS)
    plain = render(tokenizer, PAIR, [{"name": "look"}] if tools else None, loss_on="all-assistant")
    n_special = count_special(tokenizer, plain.text)
    for treatment, note in (("escape", ESCAPED), ("strip", STRIPPED)):
        shown = render(tokenizer, messages, tools, loss_on="all-assistant", special_tokens=treatment)
        assert (shown.problem, shown.note) == (None, note)
        if place != "system":
            assert count_special(tokenizer, shown.text) == n_special
        if treatment == "escape" and not (place == "tool" and tokenizer.chat_template == FAMILIES["deepseek"].template):
            assert f"{marker[0]} {marker[1:]}" in shown.text
    prompt = render_prompt(tokenizer, messages, tools, special_tokens="strip")
    assert render(tokenizer, messages, tools, loss_on="last-assistant", special_tokens="strip").text.startswith(prompt)


def count_special(tokenizer, text):
    special = set(tokenizer.added_tokens_decoder)
    return sum(code in special for code in tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("talk", [PAIR, TALK, [{"role": "system", "content": "be brief"}, *TALK]])
def test_rows_in_the_template_are_recognized_and_read_as_the_turns_they_hold(tokenizer, family, talk):
    if talk[0]["role"] == "system" and not family.has_system:
        pytest.skip("the template takes no system turn")
    row = templated(tokenizer, talk)
    assert show(tokenizer, row).problem == HOLDS_MARKERS
    shown = show(tokenizer, row, special_tokens="strip")
    plain = show(tokenizer, talk)
    assert (shown.text, shown.spans, shown.note) == (plain.text, plain.spans, STRIPPED)


def test_a_template_without_special_tokens_has_words_for_markers(plain_llama):
    tokenizer = AutoTokenizer.from_pretrained(plain_llama)
    prepare_template(tokenizer)
    row = [{"role": "user", "content": "### user:\nhi\n\n### assistant:\n"}, {"role": "assistant", "content": "hello"}]
    assert show(tokenizer, row).problem == HOLDS_MARKERS
    plain = show(tokenizer, [{**row[0], "content": "hi"}, row[1]])
    assert show(tokenizer, row, special_tokens="strip").text == plain.text
    inside = [{"role": "user", "content": "write ### user: in a line"}, PAIR[1]]
    assert show(tokenizer, inside).problem is None


def test_words_that_no_template_writes_around_turns_are_no_markers(tokenizer):
    for words in ("<think>\n", "user", "assistant\n", "<unk>", "<filename>", "| a | b |", "[x] done", "a < b"):
        assert show(tokenizer, [{**PAIR[0], "content": words}, PAIR[1]]).problem is None


def test_plain_texts_keep_their_markers_and_end_once(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    rows = load([{"text": text}, {"text": "plain"}, {"text": "ended<|im_end|>"}])
    examples = tokenize(rows, tokenizer, task="text", max_length=512, loss_on="all-assistant")
    shown = [tokenizer.decode([label for label in row.labels if label != IGNORED]) for row in examples.rows]
    assert shown == [text.rstrip(), "plain<|im_end|>", "ended<|im_end|>"]
    assert examples.notes == {KEPT: 1, HAD_END: 1}
    assert clean_text(tokenizer, text, "refuse")[2] == HOLDS_MARKERS
    assert clean_text(tokenizer, text, "strip")[0] == "user\nhi\nassistant\nhello"
    assert "< |im_start|>" in clean_text(tokenizer, text, "escape")[0]


def test_rows_with_markers_are_counted_with_their_reason(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    rows = load(
        [
            {"prompt": "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n", "completion": "So.<|im_end|>"},
            {"prompt": "How else?", "completion": "Thus.<|im_end|>"},
            {"prompt": "And plainly?", "completion": "Yes."},
        ]
    )
    options = {"task": "sft", "max_length": 512, "loss_on": "all-assistant"}
    counts = tokenize(rows, tokenizer, **options).counts()
    assert counts["rows_left_out"] == {HOLDS_MARKERS: 1}
    assert counts["rows_with_markers"] == {HAD_END: 1}
    stripped = tokenize(rows, tokenizer, **options, special_tokens="strip")
    learned = [[label for label in row.labels if label != IGNORED] for row in stripped.rows]
    assert [tokenizer.decode(each) for each in learned] == ["So.<|im_end|>", "Thus.<|im_end|>", "Yes.<|im_end|>"]
    assert tokenizer.decode(stripped.rows[0].input_ids).count("<|im_start|>") == 2
    assert stripped.counts()["rows_with_markers"] == {HAD_END: 1, STRIPPED: 1}


OTHERS = {
    "chatml": ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "hello<|im_end|>"),
    "chatml system": (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        "hello",
    ),
    "llama 2": ("<s>[INST] hi [/INST]", " hello </s>"),
    "llama 3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\nhello<|eot_id|>",
    ),
    "gemma": ("<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "hello<end_of_turn>\n"),
    "zephyr": ("<|user|>\nhi</s>\n<|assistant|>\n", "hello</s>"),
    "several": ("<s>[INST] yes [/INST] no </s><s>[INST] hi [/INST]", "hello"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_rows_in_the_template_of_other_models_are_told_and_stripped_on_request(name, plain_llama):
    tokenizer = AutoTokenizer.from_pretrained(plain_llama)
    prepare_template(tokenizer)
    tokenizer = drop_chatml(tokenizer)
    question, answer = OTHERS[name]
    row = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    told = show(tokenizer, row)
    assert (told.problem, told.note) == (None, FOREIGN)
    assert question in told.text
    stripped = show(tokenizer, row, special_tokens="strip")
    assert stripped.note == STRIPPED
    assert stripped.text.endswith("### user:\nhi\n\n### assistant:\nhello<|pad|>\n\n")
    assert ("### system:\nbe brief" in stripped.text) == ("system" in name)
    assert ("yes" in stripped.text) == (name == "several")
    assert show(tokenizer, row, special_tokens="refuse").problem == HOLDS_MARKERS


def test_a_text_that_mentions_the_tokens_of_other_models_is_no_template(plain_llama):
    tokenizer = drop_chatml(AutoTokenizer.from_pretrained(plain_llama))
    prepare_template(tokenizer)
    for words in ("what does [INST] mean?", "<|im_start|>user is how ChatML begins", "<s>struck</s> out"):
        assert show(tokenizer, [{**PAIR[0], "content": words}, PAIR[1]]).note is None


def drop_chatml(tokenizer):
    """Return a tokenizer to which <|im_start|> and <|im_end|> are text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [each for each in state["added_tokens"] if each["content"] == "<|pad|>"]
    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), pad_token="<|pad|>", eos_token="<|pad|>"
    )
    bare.chat_template = tokenizer.chat_template
    return bare


def test_markers_are_found_anew_for_another_template(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    assert find_markers(tokenizer) is find_markers(tokenizer)
    before = find_markers(tokenizer)
    tokenizer.chat_template = FAMILIES["gemma"].template
    assert find_markers(tokenizer) is not before
