import pytest
from transformers import AutoTokenizer

from tests.models.causal_lm.conversations import make_talk
from thresher.errors import InputError
from thresher.models.causal_lm.chat_template import (
    REWRITES,
    prepare_template,
    render,
    render_prompt,
    write_start_into_template,
)

TALK = make_talk("be brief", "hi", "hello", "bye", "see you")
# Drops the words of every assistant turn but the last, as templates that strip earlier reasoning
# do.
FORGETFUL = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{%- if m['role'] != 'assistant' or loop.last %}{{ m['content'] }}{% endif -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}"
)
MARKED = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{%- if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}"
)


@pytest.fixture
def tokenizer(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


def learned(rendered):
    return [rendered.text[start:end] for start, end in rendered.spans]


def test_every_assistant_turn_is_learned_with_the_token_that_ends_it(tokenizer):
    assert learned(render(tokenizer, TALK, None, loss_on="all-assistant")) == ["hello<|im_end|>", "see you<|im_end|>"]


@pytest.mark.parametrize("loss_on", ["all-assistant", "last-assistant"])
def test_a_conversation_may_begin_with_a_greeting(tokenizer, loss_on):
    """Templates refuse to show the nothing that stands before it, which ended in a traceback."""
    greeting = [{"role": "assistant", "content": "and you are?"}, *TALK[1:3]]
    expected = ["and you are?<|im_end|>", "hello<|im_end|>"]
    found = render(tokenizer, greeting, None, loss_on=loss_on)
    assert learned(found) == (expected if loss_on == "all-assistant" else expected[1:])


@pytest.mark.parametrize("block", [("", ""), ("{% generation %}", "{% endgeneration %}")])
def test_a_conversation_is_the_same_text_on_another_day(tokenizer, block):
    from datetime import datetime

    template = (
        '{{ strftime_now("%Y %H:%M:%S.%f") }}{% for m in messages %}|{{ m.role }}:START{{ m.content }}END{% endfor %}'
    )
    tokenizer.chat_template = template.replace("START", block[0]).replace("END", block[1])
    found = render(tokenizer, TALK[1:3], None, loss_on="all-assistant")
    assert found.text.startswith("2024 00:00:00.000000|user:hi|assistant:hello")
    assert str(datetime.now().year) not in render_prompt(tokenizer, TALK[1:3], None)


def test_a_block_that_leaves_out_the_end_of_the_turn_is_learned_with_it(tokenizer):
    whole = render(tokenizer, TALK, None, loss_on="all-assistant")
    ending = "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    assert MARKED.count(ending) == 1
    tokenizer.chat_template = MARKED.replace(ending, "{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>' }}")
    found = render(tokenizer, TALK, None, loss_on="all-assistant")
    assert (found.text, found.spans) == (whole.text, whole.spans)
    # the start of the next turn ends none
    tokenizer.chat_template = MARKED.replace(" + '<|im_end|>'", "")
    assert learned(render(tokenizer, TALK, None, loss_on="all-assistant")) == ["hello", "see you"]


@pytest.mark.parametrize("template", ["PLAIN", "NAMED"])
def test_the_saved_template_writes_the_bos_that_was_put_before(tokenizer, template, tmp_path):
    tokenizer.bos_token = "<|pad|>"
    plain = tokenizer.chat_template
    tokenizer.chat_template = plain if template == "PLAIN" else {"default": plain, "tool_use": plain}
    write_start_into_template(tokenizer).save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    ids = saved.apply_chat_template(TALK[1:3], tokenize=True, return_dict=False)
    assert ids == [0, *tokenizer.apply_chat_template(TALK[1:3], tokenize=True, return_dict=False)]
    assert write_start_into_template(saved) is saved


def test_only_the_last_turn_is_learned_when_asked(tokenizer):
    assert learned(render(tokenizer, TALK, None, loss_on="last-assistant")) == ["see you<|im_end|>"]


@pytest.mark.parametrize("loss_on", ["all-assistant", "last-assistant"])
def test_generation_blocks_and_prefixes_find_the_same_spans(tokenizer, loss_on):
    by_prefix = render(tokenizer, TALK, None, loss_on=loss_on)
    tokenizer.chat_template = MARKED
    by_blocks = render(tokenizer, TALK, None, loss_on=loss_on)
    assert (by_blocks.text, by_blocks.spans) == (by_prefix.text, by_prefix.spans)


def test_a_template_that_rewrites_history_is_refused_for_all_turns_but_not_for_the_last(tokenizer):
    tokenizer.chat_template = FORGETFUL
    refused = render(tokenizer, TALK, None, loss_on="all-assistant")
    assert refused.problem == REWRITES
    assert refused.spans == ()
    assert learned(render(tokenizer, TALK, None, loss_on="last-assistant")) == ["see you<|im_end|>"]


def test_a_thought_that_only_the_prompt_opens_is_no_part_of_what_is_shown(tokenizer):
    shown = render(tokenizer, TALK, None, loss_on="all-assistant")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'"
    )
    assert render_prompt(tokenizer, TALK, None).endswith("<think>\n")
    assert render(tokenizer, TALK, None, loss_on="all-assistant") == shown


def test_a_token_of_white_space_ends_no_turn(tokenizer):
    tokenizer.add_tokens(["\n\n"])
    tokenizer.chat_template = "{%- for m in messages -%}{{ m['role'] + ': ' + m['content'] + '\n\n' }}{%- endfor -%}"
    tokenizer.chat_template += "{%- if add_generation_prompt %}{{ 'assistant: ' }}{% endif -%}"
    assert learned(render(tokenizer, TALK[1:3], None, loss_on="all-assistant")) == ["hello\n\n<|im_end|>"]


def test_an_end_token_is_added_where_the_template_has_none(tokenizer):
    tokenizer.chat_template = "{%- for m in messages -%}{{ m['role'] + ': ' + m['content'] + '\n' }}{%- endfor -%}"
    tokenizer.chat_template += "{%- if add_generation_prompt %}{{ 'assistant: ' }}{% endif -%}"
    rendered = render(tokenizer, TALK[1:3], None, loss_on="all-assistant")
    assert learned(rendered) == ["hello\n<|im_end|>"]


def test_what_follows_the_last_assistant_turn_is_left_out(tokenizer):
    more = [*TALK, {"role": "user", "content": "unanswered"}]
    assert render(tokenizer, more, None, loss_on="all-assistant") == render(
        tokenizer, TALK, None, loss_on="all-assistant"
    )


@pytest.mark.parametrize("template", [None, MARKED])
def test_turns_of_weight_0_are_not_learned(tokenizer, template):
    tokenizer.chat_template = template or tokenizer.chat_template
    conversation = [{**turn, "weight": 0} if turn["content"] == "hello" else turn for turn in TALK]
    rendered = render(tokenizer, conversation, None, loss_on="all-assistant")
    assert learned(rendered) == ["see you<|im_end|>"]
    assert rendered.text == render(tokenizer, TALK, None, loss_on="all-assistant").text


def test_the_words_of_the_template_in_a_response_do_not_confuse_the_spans(tokenizer):
    conversation = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "assistant\nhello user"}]
    assert learned(render(tokenizer, conversation, None, loss_on="all-assistant")) == [
        "assistant\nhello user<|im_end|>"
    ]


def test_a_conversation_that_the_template_refuses_gives_its_reason(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('only two turns') }}"
    assert "only two turns" in str(render(tokenizer, TALK, None, loss_on="all-assistant").problem)


def test_the_plain_template_learns_the_response_and_the_end(plain_llama):
    tokenizer = AutoTokenizer.from_pretrained(plain_llama)
    assert prepare_template(tokenizer)
    rendered = render(tokenizer, TALK, None, loss_on="all-assistant")
    assert learned(rendered) == ["hello<|im_end|>", "see you<|im_end|>"]
    assert rendered.text.startswith("### system:\nbe brief\n\n### user:\nhi\n\n### assistant:\nhello")


def test_the_plain_template_shows_tools_and_tool_calls(plain_llama):
    tokenizer = AutoTokenizer.from_pretrained(plain_llama)
    prepare_template(tokenizer)
    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    conversation = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    rendered = render(
        tokenizer, conversation, [{"type": "function", "function": {"name": "add"}}], loss_on="all-assistant"
    )
    assert rendered.problem is None
    assert '"name": "add"' in rendered.text[: rendered.spans[0][0]]
    assert '"name": "add"' in learned(rendered)[0]


def test_a_tokenizer_that_cannot_end_a_turn_is_refused(plain_llama):
    tokenizer = AutoTokenizer.from_pretrained(plain_llama)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="neither a chat template nor an end-of-sequence token"):
        prepare_template(tokenizer)


def test_the_prompt_ends_where_the_answer_starts(tokenizer):
    rendered = render(tokenizer, TALK, None, loss_on="last-assistant")
    assert render_prompt(tokenizer, TALK, None) == rendered.text[: rendered.spans[0][0]]
