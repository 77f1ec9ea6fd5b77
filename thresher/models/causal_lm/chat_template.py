"""Conversations as text, with the character spans that the model should learn.

The tokenizer's own chat template is used where there is one; else `PLAIN_TEMPLATE`. Spans are found
in the rendered text, never by tokenizing a prefix on its own, since the tokens of a prefix are not
always a prefix of the tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from thresher.errors import InputError
from thresher.models.causal_lm.call_forms import fit_calls, unwrap_call
from thresher.models.causal_lm.template_text import (
    PLAIN_TEMPLATE,
    Message,
    Span,
    count_assistant_blocks,
    render_blocks,
    template_errors,
    write_bos,
    write_text,
)
from thresher.models.causal_lm.turn_markers import clean_conversation
from thresher.models.settings import Treatment

REWRITES = "the chat template rewrites earlier turns, so they cannot be learned (--loss-on last-assistant can)"
REWRITES_LAST = "the chat template renders the last turn differently from its prompt, so it cannot be learned"
NO_ASSISTANT = "there is no assistant turn to learn"
TEMPLATE_REFUSES = "the chat template refuses the conversation"
HIDES_CALLS = "the chat template does not render tool calls, so turns with tool calls cannot be used"

# What some templates (DeepSeek-R1, QwQ) open an answer with and leave out of the turns they show
_THOUGHT = re.compile(r"<think>\s*(</think>\s*)?$")
_PLACEHOLDER = "x7placeholder7x"  # stands in for the content of a turn
_LONGEST_OPENING = 64  # characters that a template writes between prompt and content


@dataclass(frozen=True)
class Rendered:
    """A conversation as one string.

    Attributes:
        text: what is tokenized.
        spans: [start, end) characters to learn, in order.
        problem: why there is nothing to learn, or None.
        note: what was done with turn markers in the texts of the row, or None.
    """

    text: str
    spans: tuple[Span, ...]
    problem: str | None = None
    note: str | None = None


def has_assistant_blocks(template: str) -> bool:
    """Tell whether a chat template marks what the assistant says with a generation block."""
    return count_assistant_blocks(template) > 0


def prepare_template(tokenizer: Any) -> bool:
    """Give a tokenizer without a chat template the plain one; return whether that was done.

    Raises:
        InputError: the tokenizer has no template and no end-of-sequence token to end a turn with.
    """
    if tokenizer.chat_template is not None:
        return False
    if tokenizer.eos_token is None:
        raise InputError(
            "model: its tokenizer has neither a chat template nor an end-of-sequence token; "
            "choose a causal language model that has one"
        )
    tokenizer.chat_template = PLAIN_TEMPLATE
    return True


def start_id(tokenizer: Any) -> int:
    """Return the token that stands before a text: BOS, or EOS where a model has no BOS (GPT-2).

    Raises:
        InputError: the tokenizer has neither.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is None and eos is None:
        raise InputError(
            "model: a text must stand behind a begin- or end-of-sequence token, and its tokenizer has neither; "
            "choose another, or name one in tokenizer_config.json"
        )
    return int(eos if bos is None else bos)


def start_tokens(tokenizer: Any, ids: Sequence[int], *, is_asked: bool) -> list[int]:
    """Return what is put before a text's tokens, to train on it, score it or continue it.

    A text starts with BOS, whether or not the chat template writes it. With a model that has none,
    a text whose first token is learned or scored stands behind the end of another (`start_id`); any
    other starts as it is.

    Args:
        tokenizer: of the model.
        ids: the tokens, without special ones but those that stand in the text.
        is_asked: the first of them is learned or scored.
    """
    bos = tokenizer.bos_token_id
    has_start = bos is None or list(ids[:1]) == [bos]
    return [start_id(tokenizer)] if is_asked or not has_start else []


def write_start_into_template(tokenizer: Any) -> Any:
    """Return a tokenizer whose chat template writes the BOS that `start_tokens` adds.

    It is what an adapter is saved with: who asks the adapter through its own tokenizer then gives
    it what it learned.
    """
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = (
        None if tokenizer.chat_template is None else render(tokenizer, conversation, None, loss_on="last-assistant")
    )
    if rendered is None or rendered.problem is not None:
        return tokenizer
    ids = tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
    if not start_tokens(tokenizer, ids, is_asked=False):
        return tokenizer
    changed = deepcopy(tokenizer)
    changed.chat_template = write_bos(tokenizer.chat_template)
    return changed


def render_prompt(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Any] | None,
    *,
    special_tokens: Treatment | None = None,
) -> str:
    """Return the text before the last learned turn, up to where the model starts to answer."""
    clean = clean_conversation(tokenizer, messages, tools, special_tokens)
    messages, tools = clean.messages, clean.tools
    last = (_learned_turns(messages) or _assistant_turns(messages))[-1]
    fitted = _fit(tokenizer, messages[: last + 1], tools)
    return write_text(tokenizer, (messages if fitted is None else fitted)[:last], tools, add_generation_prompt=True)


def render_conversation(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None) -> str | None:
    """Return a conversation up to where the model answers; None if the template refuses it."""
    try:
        fitted = _fit(tokenizer, messages, tools)
        return None if fitted is None else write_text(tokenizer, fitted, tools, add_generation_prompt=True)
    except template_errors():
        return None


def _fit(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None) -> list[Message] | None:
    """Return a conversation with its calls in the template's form, None where it hides them."""
    return fit_calls(
        messages, lambda each: write_text(tokenizer, each, tools, add_generation_prompt=False), template_errors()
    )


def turn_end_ids(tokenizer: Any) -> frozenset[int]:
    """Return the special token that ends an assistant turn in the chat template, if any."""
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rendered = render(tokenizer, conversation, None, loss_on="last-assistant")
    learned = [rendered.text[start:end] for start, end in rendered.spans]
    tokens = tokenizer.added_tokens_decoder.items()
    return frozenset(
        code for code, token in tokens if learned and token.content and learned[-1].endswith(token.content)
    )


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Any] | None,
    *,
    loss_on: str,
    special_tokens: Treatment | None = None,
) -> Rendered:
    """Render a conversation and find what is learned: the assistant's words and the turn's end.

    Turns of weight 0 and empty ones are not learned. With generation blocks in the template the
    template says what the others are. Otherwise each is found by rendering the conversation up to
    it and including it; both must be prefixes of the whole, or the turn must stand there with all
    it says; else the template rewrites history and the conversation is refused with its reason. A
    "<think>" that the template opens an answer with and does not show is not missed.

    Args:
        tokenizer: with a chat template.
        messages: turns with `role` and `content`; what follows the last assistant turn is left out.
        tools: JSON schemas of the tools, or None.
        loss_on: "all-assistant" or "last-assistant".
        special_tokens: what to do with turn markers in the texts; None: refuse the conversation.
    """
    clean = clean_conversation(tokenizer, messages, tools, special_tokens)
    if clean.problem is not None:
        return Rendered("", (), clean.problem)
    return replace(_render(tokenizer, clean.messages, clean.tools, loss_on), note=clean.note)


def _render(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, loss_on: str) -> Rendered:
    learned = _learned_turns(messages)
    if not learned:
        return Rendered("", (), NO_ASSISTANT)
    messages = messages[: learned[-1] + 1]
    if loss_on == "last-assistant":
        learned = learned[-1:]
    try:
        fitted = _fit(tokenizer, messages, tools)
        if fitted is None:
            return Rendered("", (), HIDES_CALLS)
        template = tokenizer.get_chat_template(tools=tools)
        blocks = _by_blocks(tokenizer, fitted, tools, learned) if has_assistant_blocks(template) else None
        if blocks is None:
            return _by_prefix(tokenizer, fitted, tools, learned)
        return Rendered(*blocks, None if blocks[1] else NO_ASSISTANT)
    except template_errors() as error:
        return Rendered("", (), f"{TEMPLATE_REFUSES} ({error})")


def _assistant_turns(messages: Sequence[Message]) -> list[int]:
    return [position for position, message in enumerate(messages) if message["role"] == "assistant"]


def _learned_turns(messages: Sequence[Message]) -> list[int]:
    """Return the assistant turns that may be learned: none of weight 0, and none that is empty."""
    return [
        turn for turn in _assistant_turns(messages) if messages[turn].get("weight") != 0 and any(_words(messages[turn]))
    ]


def _words(message: Message) -> list[str]:
    """Return what a turn says: its content, its reasoning and the names of the tools it calls."""
    texts = [message.get(key) for key in ("content", "reasoning_content", "thinking")]
    calls = [unwrap_call(call).get("name") or "call" for call in message.get("tool_calls") or ()]
    return [text.strip() for text in (*texts, *calls) if isinstance(text, str) and text.strip()]


def _by_blocks(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, learned: Sequence[int]
) -> tuple[str, tuple[Span, ...]] | None:
    """Render with the template's own generation blocks; spans in characters survive truncation.

    Returns:
        The text and the blocks of the learned turns; None where it is not clear which these are.
    """
    text, blocks = render_blocks(tokenizer, messages, tools)
    n_more = len(_common_end(tokenizer, text, [end for _, end in blocks]))
    spans = tuple((start, end + n_more) for start, end in blocks)
    own = _assistant_turns(messages)
    if list(learned) == own or not spans:
        return text, spans
    if list(learned) == own[-1:] and count_assistant_blocks(tokenizer.get_chat_template(tools=tools)) == 1:
        return text, spans[-1:]
    # each turn has as many blocks as the conversation has more with it than without
    until = [0, *(len(render_blocks(tokenizer, messages[: turn + 1], tools)[1]) for turn in own)]
    if until[-1] != len(spans) or sorted(until) != until:
        return None
    return text, tuple(span for i, turn in enumerate(own) if turn in learned for span in spans[until[i] : until[i + 1]])


def _common_end(tokenizer: Any, text: str, ends: Sequence[int]) -> str:
    """Return the special token behind every block of a text, where none ends a block; or nothing.

    The blocks of some templates leave out what ends a turn, and a model that never learns it never
    stops.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content]
    if any(text.endswith(tuple(special), 0, end) for end in ends):
        return ""
    behind = {max((token for token in special if text.startswith(token, end)), key=len, default="") for end in ends}
    return behind.pop() if len(behind) == 1 else ""


def _by_prefix(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, learned: Sequence[int]
) -> Rendered:
    whole = write_text(tokenizer, messages, tools, add_generation_prompt=False)
    last = len(messages) - 1
    spans: list[Span] = []
    for turn in learned:
        # a turn is what the conversation up to it and the one that includes it differ in
        before = _render_before_turn(tokenizer, messages, tools, turn)
        if not whole.startswith(before):
            before = _THOUGHT.sub("", before)
        until = (
            whole if turn == last else write_text(tokenizer, messages[: turn + 1], tools, add_generation_prompt=False)
        )
        if whole.startswith(before) and whole.startswith(until) and len(before) < len(until):
            spans.append((len(before), _end_of_turn(tokenizer, until)))
            continue
        span = None if turn == last else _find_shown(tokenizer, messages, tools, turn, (before, whole))
        if span is None:
            return Rendered(whole, (), REWRITES_LAST if turn == last else REWRITES)
        spans.append(span)
    start, end = spans[-1]
    if tokenizer.eos_token is not None and not _ends_with_special(tokenizer, whole[start:end]):
        # the template ends no turn, and the model must learn to stop
        whole = whole[:end] + tokenizer.eos_token
        spans[-1] = (start, len(whole))
    return Rendered(whole, tuple(spans))


def _find_shown(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, turn: int, texts: tuple[str, str]
) -> Span | None:
    """Return where a turn stands that the template shows otherwise once more turns follow.

    Qwen 3 opens the last turn with an empty thought that it leaves out later; Mistral lists the
    tools before the last question alone. What stands around the turn does not depend on it.

    Args:
        tokenizer: with a chat template.
        messages: the conversation.
        tools: JSON schemas of the tools, or None.
        turn: which of the messages.
        texts: of the conversation up to the turn, and of the whole one.

    Returns:
        Start and end, behind the special token of the turn; None where there is no such token, or
        where the text lacks anything that the turn says.
    """
    before, whole = texts
    other = {"role": "assistant", "content": _PLACEHOLDER}
    try:
        text = write_text(
            tokenizer, [*messages[:turn], other, *messages[turn + 1 :]], tools, add_generation_prompt=False
        )
    except template_errors():
        return None
    ahead, shown, behind = text.partition(_PLACEHOLDER)
    start = len(before) if whole.startswith(before) else _find_start(ahead, before)
    end = len(whole) - len(behind)
    is_same = shown and whole.startswith(ahead[:start]) and whole.endswith(behind)
    if not (is_same and all(word in whole[start:end] for word in _words(messages[turn]))):
        return None
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
    n_blank = len(behind) - len(behind.lstrip())
    n_token = max((len(token) for token in special if behind.startswith(token, n_blank)), default=0)
    return (start, end + n_blank + n_token) if n_token else None


def _find_start(ahead: str, before: str) -> int:
    """Return where a turn starts in a text up to its content, which may open it with a space.

    Another text up to the turn (`before`) ends with what stands before the turn here, too.
    """
    ends = range(len(ahead), max(len(ahead) - _LONGEST_OPENING, -1), -1)
    return max(ends, key=lambda end: len(os.path.commonprefix([ahead[:end][::-1], before[::-1]])))


def _render_before_turn(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, turn: int) -> str:
    """Return the text before an assistant turn.

    Before the first turn of all, a greeting, it is what two greetings share.
    """
    if turn:
        return write_text(tokenizer, messages[:turn], tools, add_generation_prompt=True)
    greetings = ([{"role": "assistant", "content": word}] for word in "ab")
    return os.path.commonprefix([write_text(tokenizer, each, tools, add_generation_prompt=False) for each in greetings])


def _end_of_turn(tokenizer: Any, text: str) -> int:
    """Return where a turn ends: after its special token, before the template's white space."""
    stripped = text.rstrip()
    return len(stripped) if _ends_with_special(tokenizer, stripped) else len(text)


def _ends_with_special(tokenizer: Any, text: str) -> bool:
    # some tokenizers (Gemma, Phi) have added tokens for runs of white space, which end nothing
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()}
    return text.endswith(tuple(added))


def mark_tokens(spans: Iterable[Span], offsets: Sequence[Span]) -> list[bool]:
    """Tell of each token of a text whether it holds a character of a span.

    A token that straddles the start of a span is in it too, so that no character of a response is
    left out. Some tokenizers (GPT-NeoX, RoBERTa) trim white space from the offsets: a token of
    white space alone then is (end, end). Cost: O(tokens + spans).

    Args:
        spans: [start, end) characters, in order.
        offsets: [start, end) characters of each token.
    """
    is_in = [False] * len(offsets)
    token = 0
    # both lists are in order, so no token is looked at again for a later span
    for start, end in spans:
        while token < len(offsets) and offsets[token][1] <= start:
            token += 1
        while token < len(offsets) and (offsets[token][0] < end or offsets[token] == (end, end)):
            is_in[token] = True
            token += 1
    return is_in
