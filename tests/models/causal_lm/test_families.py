"""What is learned under the chat templates of eight families, against a slow reference."""

import json
import random
import shutil

import pytest
from transformers import AutoTokenizer

from tests.models.causal_lm.families import FAMILIES
from thresher.dataset import load
from thresher.models.causal_lm.chat_template import HIDES_CALLS, TEMPLATE_REFUSES, render, render_prompt
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.tokenized_rows import PROBLEMS, RowTokenizer, row_texts
from thresher.trainer.engine.tokenization import tokenize

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "d",
            "parameters": {"type": "object", "properties": {"city": {"type": ["string", "null"], "default": None}}},
        },
    }
]
NO = [
    *({"train": False}, {"training": False}, {"loss": False}, {"loss": 0}, {"loss_mask": 0}, {"mask": True}),
    *({"mask": 0}, {"masked": True}, {"weight": 0}, {"weight": 0.0}, {"train": "false"}),
]
YES = [
    {},
    {},
    {},
    {"train": True},
    {"training": None},
    {"loss": True},
    {"loss_mask": 1},
    {"mask": False},
    {"weight": 1},
]
FLAGS = [*((flag, False) for flag in NO), *((flag, True) for flag in YES)]
WORDS = ["Paris é.", "None", "two words", "{'a': 1}", 'say "hi"', "x\n\ny", "<think>", "assistant", "0"]


def build_tokenizer(family, tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.special)})
    tokenizer.eos_token = family.eos
    tokenizer.chat_template = family.template
    return tokenizer


def draw_calls(rng, family, turn):
    calls = []
    for number in range(rng.randint(1, family.n_calls)):
        arguments = {"city": rng.choice(WORDS), "unit": rng.choice([None, 3, [1, None], {"a": None}])}
        arguments = rng.choice([arguments, {}, json.dumps(arguments), json.dumps(arguments, ensure_ascii=False)])
        call = {"id": f"call_{turn}x{number}", "type": "function", "function": {"name": "look", "arguments": arguments}}
        calls.append(call)
    return calls


def draw_conversation(rng, family):
    """Return a row, and the positions of the turns to learn, up to the last one."""
    messages, learned = [], []
    has_tools = family.has_tools and rng.random() < 0.6
    if family.has_system and rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(WORDS)})
    for _ in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": rng.choice(WORDS)})
        if has_tools and rng.random() < 0.5:
            calls, (flag, is_wanted) = draw_calls(rng, family, len(messages)), rng.choice(FLAGS)
            if is_wanted:
                learned.append(len(messages))
            messages.append({"role": "assistant", "content": rng.choice([None, ""]), "tool_calls": calls, **flag})
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": "22"} for call in calls]
        words, (flag, is_wanted) = rng.choice([*WORDS, "", " "]), rng.choice(FLAGS)
        if words.strip() and is_wanted:
            learned.append(len(messages))
        messages.append({"role": "assistant", "content": words, **flag})
    if not messages[-1]["content"].strip():  # such a row is rejected
        messages[-1]["content"] = "the end"
        learned += [len(messages) - 1] if is_wanted else []
    return {"messages": messages, "tools": TOOLS if has_tools else None}, learned


def expect(family, row, learned, loss_on):
    """Return the text and the learned spans of the slow reference."""
    messages = row["messages"][: learned[-1] + 1]
    text, spans = "", []
    for piece, turn in family.pieces(messages, row["tools"]):
        if turn in (learned if loss_on == "all-assistant" else learned[-1:]):
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, spans


@pytest.mark.parametrize("loss_on", ["all-assistant", "last-assistant"])
@pytest.mark.parametrize("name", FAMILIES)
def test_learned_spans_of_random_conversations_are_those_of_a_slow_reference(name, loss_on, tiny_llama):
    family = FAMILIES[name]
    tokenizer = build_tokenizer(family, tiny_llama)
    rng = random.Random(7)
    usable = []
    while len(usable) < 200:
        row, learned = draw_conversation(rng, family)
        usable += [(row, learned)] if learned else []
    dataset = load([row for row, _ in usable])
    for (row, learned), each in zip(usable, dataset.messages(range(len(dataset))), strict=True):
        rendered = render(tokenizer, each.messages, each.tools, loss_on=loss_on)
        text, spans = expect(family, row, learned, loss_on)
        assert rendered.problem is None, (row, rendered.problem)
        assert rendered.text == text
        assert _join(rendered.spans) == spans
        if loss_on == "last-assistant":
            assert text.startswith(render_prompt(tokenizer, each.messages, each.tools))


ROW = {
    "messages": [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_abc",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"city": "Bonn", "unit": null}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_abc", "content": "22"},
        {"role": "assistant", "content": "a"},
    ],
    "tools": TOOLS,
}


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.has_tools])
def test_calls_in_the_wire_form_are_learned_with_their_nulls(name, tiny_llama):
    tokenizer = build_tokenizer(FAMILIES[name], tiny_llama)
    rendered = render(tokenizer, ROW["messages"], ROW["tools"], loss_on="all-assistant")
    call = "".join(rendered.text[start:end] for start, end in rendered.spans).split("22")[0]
    assert rendered.problem is None
    assert "null" in call
    assert '\\"' not in call
    assert "None" not in rendered.text
    again = load([ROW]).messages([0])[0]
    assert render(tokenizer, again.messages, again.tools, loss_on="all-assistant") == rendered


@pytest.mark.parametrize("has_result", [False, True])
@pytest.mark.parametrize("name", ["gemma", "phi"])
def test_calls_that_a_template_cannot_show_are_not_learned_as_silence(name, has_result, tiny_llama):
    tokenizer = build_tokenizer(FAMILIES[name], tiny_llama)
    messages = ROW["messages"] if has_result else ROW["messages"][:2]
    problem = render(tokenizer, messages, TOOLS, loss_on="all-assistant").problem
    assert problem.startswith(TEMPLATE_REFUSES) if name == "gemma" and has_result else problem == HIDES_CALLS


def test_an_empty_list_of_calls_is_no_call(tiny_llama):
    tokenizer = build_tokenizer(FAMILIES["llama3.1"], tiny_llama)
    plain = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    listed = [plain[0], {**plain[1], "tool_calls": []}]
    expected = render(tokenizer, plain, None, loss_on="all-assistant")
    assert expected.spans
    assert render(tokenizer, listed, None, loss_on="all-assistant") == expected


def test_training_and_scoring_leave_out_rows_with_hidden_calls_for_the_same_reason(tiny_llama, tmp_path):
    build_tokenizer(FAMILIES["phi"], tiny_llama).save_pretrained(tmp_path)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_llama / name, tmp_path)
    rows = load([{**ROW, "messages": ROW["messages"][:2]}])
    examples = tokenize(
        rows, AutoTokenizer.from_pretrained(tmp_path), task="sft", max_length=64, loss_on="all-assistant"
    )
    assert examples.left_out == {HIDES_CALLS: 1}
    reader = RowTokenizer(lm=LanguageModel(str(tmp_path)), loss_on="all-assistant", max_length=64)
    [scored] = reader.tokenize(row_texts(rows).to_list())
    assert PROBLEMS[scored.problem] == HIDES_CALLS


def _join(spans):
    """Return spans with those joined that meet."""
    joined = []
    for start, end in spans:
        if start == end:
            continue
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
