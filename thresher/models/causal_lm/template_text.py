"""What a chat template makes of messages: text, and the blocks that it says the assistant wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from thresher.models.untrusted.templates import as_template_error, is_trusted, render_untrusted

Message = Mapping[str, Any]
Span = tuple[int, int]

# For models without a chat template, and saved with the adapter's tokenizer. Each turn is "###
# role:", a line break and the content (and tool calls as JSON); an assistant turn ends with the
# end-of-sequence token, which is learned.
PLAIN_TEMPLATE = (
    "{%- if bos_token %}{{ bos_token }}{% endif -%}"
    "{%- if tools %}{{ '### tools:\n' + (tools | tojson) + '\n\n' }}{% endif -%}"
    "{%- for message in messages -%}"
    "{{ '### ' + message['role'] + ':\n' }}"
    "{%- set words = (message['content'] or '') + (message['tool_calls'] | tojson if message['tool_calls'] else '') -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{ words + eos_token }}{%- endgeneration -%}"
    "{%- else -%}{{ words }}{%- endif -%}"
    "{{ '\n\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '### assistant:\n' }}{%- endif -%}"
)

START = "{{ bos_token }}"  # what an adapter's template begins with where its base's has no BOS

# Some templates (Llama 3, Mistral, gpt-oss) write today's date. A row must be the same text
# tomorrow: a run continues after midnight, and values are kept for good. This is the day that
# Llama's own falls back to.
TODAY = date(2024, 7, 26)
_TODAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def count_assistant_blocks(template: str) -> int:
    """Return in how many places a chat template marks what the assistant says as generated."""
    return len(_GENERATION.findall(template))


def write_bos(template: Any) -> Any:
    """Return a chat template, or named ones, with the BOS written at the beginning."""
    return {name: START + text for name, text in template.items()} if isinstance(template, dict) else START + template


def template_errors() -> tuple[type[Exception], ...]:
    """Return what a template raises for a conversation that it does not show."""
    from jinja2 import TemplateError

    # TypeError: it adds text to a content that is not there
    return (TemplateError, TypeError)


def write_text(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, *, add_generation_prompt: bool
) -> str:
    """Return messages as the tokenizer's chat template shows them, nulls among them."""
    return _render(tokenizer, messages, tools, add_generation_prompt=add_generation_prompt)[0]


def _template(tokenizer: Any, tools: Sequence[Any] | None) -> str:
    """Return the chat template for a conversation with or without tools, its date filled in."""
    return _TODAY.sub(lambda asked: repr(TODAY.strftime(asked[2])), str(tokenizer.get_chat_template(tools=tools)))


def render_blocks(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None) -> tuple[str, list[Span]]:
    """Return the text of messages, and where its generation blocks are."""
    text, blocks = _render(tokenizer, messages, tools, return_assistant_tokens_mask=True)
    return text, [(int(start), int(end)) for start, end in blocks]


def _render(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, **options: bool
) -> tuple[str, list[Any]]:
    # not `apply_chat_template`: it drops a content that is null, by which some templates know calls
    template = _template(tokenizer, tools)
    arguments = {
        "conversations": [list(messages)],
        "tools": tools,
        "chat_template": template,
        **tokenizer.special_tokens_map,
        **options,
    }
    if template.removeprefix(START) != PLAIN_TEMPLATE and not is_trusted(template.removeprefix(START)):
        return render_untrusted(arguments)
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, blocks = render_jinja_template(**arguments)
    except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
        raise as_template_error(type(error).__name__, str(error)) from None
    return str(texts[0]), blocks[0] if blocks else []
