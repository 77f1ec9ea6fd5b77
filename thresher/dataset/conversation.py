"""Conversations: messages in one form, from OpenAI's, ShareGPT's and plain columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from thresher.artifacts.json_text import encode_json, parse_json
from thresher.dataset.rejection import BadRow, describe_type
from thresher.dataset.values.turn_flags import FLAGS, WEIGHT, parse_flags

WHITE_SPACE = " \t\n\r\f\v\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u200b\ufeff" + "".join(
    # joiners alone are blank, too
    map(chr, [*range(0x2000, 0x200B), 0x200C, 0x200D, 0x2060, 0x180E])
)

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "assistant", "function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("observation", "function", "tool", "tool_response"), "tool"),
}
_LONGEST_ROLE = 40  # characters of an unknown one in a message
# what a chat template may read besides role and content; models that reason have the last two
_OTHER_KEYS = ("name", "tool_call_id", "tool_calls", "reasoning_content", "thinking")


@dataclass(frozen=True)
class Conversation:
    """One row as a chat template takes it.

    Attributes:
        messages: dicts with "role" (system, user, assistant, tool), "content" (text, or None with
            "tool_calls"), and "name", "tool_call_id", "tool_calls", "reasoning_content", "thinking"
            where the row has them. A "function_call" of OpenAI's first form is in "tool_calls".
            Assistant turns that are not to be learned, and empty ones, have "weight" 0; the last
            one never does, what follows it is left out. Arguments of calls are objects, unless the
            row has text that is not the JSON of one.
        tools: the tools the assistant may call, as the row has them; None where it has none.
    """

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None


@dataclass(frozen=True)
class CanonicalText:
    """The text of one row.

    Attributes:
        prompt: all before the last assistant turn.
        response: the last assistant turn.
        extra: what these two do not say, as JSON; "" where they say it all. It goes into the row's
            hash.
        row_id: from the user's id column, else None.
    """

    prompt: str
    response: str
    extra: str = ""
    row_id: str | None = None


def is_blank(text: str) -> bool:
    """Tell whether a text holds nothing but white space."""
    return not text.strip(WHITE_SPACE)


def build_turns(prompt: str, response: str, system: str | None, history: Any) -> list[dict[str, Any]]:
    """Return the messages of a row that has a prompt and a response column."""
    turns = [] if system is None else [{"role": "system", "content": system}]
    pair = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return [*turns, *_parse_history(history), *pair]


def _parse_history(history: Any) -> list[dict[str, Any]]:
    """Return the turns of a history: pairs of question and answer, or messages."""
    history = decode_json(history, "history")
    if not history and history in (None, []):
        return []
    if isinstance(history, list) and all(
        isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in history
    ):
        return parse_turns(history, "history")
    if not isinstance(history, list):
        raise BadRow(f"field 'history' must be a list of [question, answer], found {describe_type(history)}")
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise BadRow("field 'history' must hold pairs of texts [question, answer]")
        for part in pair:
            refuse_nul(part, "history")
    return [
        {"role": role, "content": text}
        for pair in history
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def refuse_nul(text: str, field: str) -> None:
    """Raise BadRow for a text with a NUL character."""
    if "\0" in text:
        raise BadRow(f"field '{field}' holds a NUL character")


def decode_json(value: Any, field: str) -> Any:
    """Return a list that a CSV or Parquet column carries as JSON text; other values as they are."""
    if not isinstance(value, str):
        return value
    if is_blank(value):
        return None
    try:
        return parse_json(value)
    except orjson.JSONDecodeError:
        raise BadRow(f"field '{field}' must be a list, found text that is not JSON") from None


def parse_turns(turns: Any, field: str) -> list[dict[str, Any]]:
    """Return the messages of a column with turns of role and content, or of from and value."""
    turns = decode_json(turns, field)
    if not isinstance(turns, list):
        raise BadRow(f"field '{field}' must be a list of messages, found {describe_type(turns)}")
    if not turns:
        raise BadRow(f"field '{field}' is empty")
    messages = [_parse_message(turn, field) for turn in turns]
    if any(not FLAGS.isdisjoint(turn) for turn in turns):
        roles = [message["role"] for message in messages]
        for message, is_learned in zip(messages, parse_flags(turns, roles, field), strict=True):
            if not is_learned:
                message[WEIGHT] = 0
    return messages


def mark_unlearned(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages up to the last assistant turn that is learned; empty ones never are.

    That the last assistant turn is empty is for `build_canonical_text` to judge.
    """
    own = [i for i, each in enumerate(messages) if each["role"] == "assistant"]
    for i in own[:-1]:
        if is_empty_turn(messages[i]):
            messages[i][WEIGHT] = 0
    if not any(WEIGHT in message for message in messages):
        return messages
    learned = [i for i in own if WEIGHT not in messages[i]]
    if not learned:
        raise BadRow("every assistant turn is empty or marked as not to be learned, so there is nothing to learn")
    return messages[: learned[-1] + 1]


def is_empty_turn(message: Mapping[str, Any]) -> bool:
    """Tell whether a turn says nothing: no content, no tool call, no reasoning."""
    texts = (message.get(key) for key in ("content", "reasoning_content", "thinking"))
    return not message.get("tool_calls") and all(not isinstance(text, str) or is_blank(text) for text in texts)


def resolve_role(name: str) -> str | None:
    """Return the chat template's role for a user's name of it, None where it is unknown."""
    return ROLES.get(name.lower())


def get_first(turn: Mapping[str, Any], name: str, other: str) -> Any:
    """Return a member, or the other where it is null, as in tables that hold both forms."""
    value = turn.get(name)
    return turn.get(other) if value is None else value


def _parse_message(turn: Any, field: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise BadRow(f"field '{field}' must hold objects, found {describe_type(turn)}")
    role = get_first(turn, "role", "from")
    if not isinstance(role, str):
        raise BadRow(f"a message of '{field}' has no role")
    known = resolve_role(role)
    if known is None:
        raise BadRow(f"a message of '{field}' has an unknown role '{role[:_LONGEST_ROLE]}'; known: {', '.join(ROLES)}")
    message: dict[str, Any] = {"role": known}
    message["content"] = _parse_content(get_first(turn, "content", "value"), field)
    if len(turn) == 2 and message["content"] is not None:
        return message  # of role and content alone, as most are
    for key in _OTHER_KEYS:
        if turn.get(key) is not None:
            message[key] = turn[key]
    calls, call = decode_json(message.pop("tool_calls", None), "tool_calls"), turn.get("function_call")
    if not calls and isinstance(call, dict) and any(value is not None for value in call.values()):
        calls = [{"type": "function", "function": call}]
    if calls is not None:
        message["tool_calls"] = _parse_calls(calls, field)
    if message["content"] is None and not message.get("tool_calls"):
        raise BadRow(f"a message of '{field}' has neither content nor tool_calls")
    return message


def _parse_calls(calls: Any, field: str) -> Any:
    """Return tool calls with their arguments as objects, and without null members but in these."""
    if not isinstance(calls, list):
        raise BadRow(f"the tool_calls of a message of '{field}' must be a list, found {describe_type(calls)}")
    for call in calls:
        if not isinstance(call, dict):
            raise BadRow(f"a tool call of a message of '{field}' must be an object, found {describe_type(call)}")
    return [_parse_call(call) for call in calls]


def _parse_call(call: dict[str, Any]) -> dict[str, Any]:
    call = {key: value for key, value in call.items() if value is not None}
    if isinstance(call.get("function"), dict):
        call["function"] = _parse_call(call["function"])
    if "arguments" in call:
        call["arguments"] = decode_arguments(call["arguments"])
    return call


def decode_arguments(arguments: Any) -> Any:
    """Return the object that the arguments of a call are the JSON text of; others as they are.

    The API's text for no arguments at all is empty. Text whose numbers or characters would not
    survive stays text.
    """
    if not isinstance(arguments, str):
        return arguments
    if is_blank(arguments):
        return {}
    try:
        decoded = json.loads(arguments, parse_constant=_refuse_constant)
        orjson.dumps(decoded)
    except (ValueError, TypeError, RecursionError):
        return arguments
    return decoded if isinstance(decoded, dict) else arguments


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_content(content: Any, field: str) -> str | None:
    """Return the text of a message; a list of text parts becomes one text."""
    if content is None:
        return None
    if isinstance(content, list):
        content = "\n".join(_read_part(part, field) for part in content)
    if not isinstance(content, str):
        raise BadRow(f"the content of a message of '{field}' must be text, found {describe_type(content)}")
    if "\0" in content:
        raise BadRow(f"a message of '{field}' holds a NUL character")
    return content


def _read_part(part: Any, field: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadRow(f"a message of '{field}' has a part that is not text")


def drop_nulls(value: Any) -> Any:
    """Drop null members, which tables add to every struct that lacks a field."""
    if isinstance(value, dict):
        return {key: drop_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [drop_nulls(member) for member in value]
    return value


def parse_tools(tools: Any, field: str) -> list[Any] | None:
    """Return the tools of a row, from a list or its JSON text; None where there are none."""
    tools = decode_json(tools, field)
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise BadRow(f"field '{field}' must be a list of tools, found {describe_type(tools)}")
    return tools or None


def build_canonical_text(conversation: Conversation) -> CanonicalText:
    """Return the text of a conversation: all before the last assistant turn, and that turn.

    One user turn alone is its own text; several turns are written as "role: content" lines.
    Messages after the last assistant turn are in neither text.
    """
    messages = conversation.messages
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    if last is None:
        raise BadRow("no assistant turn")
    response = _read_text(messages[last])
    if is_blank(response):
        raise BadRow("the last assistant turn is empty")
    before = messages[:last]
    is_single = len(before) == 1 and before[0]["role"] == "user"
    prompt = _read_text(before[0]) if is_single else "\n".join(f"{m['role']}: {_read_text(m)}" for m in before)
    if all(is_blank(_read_text(message)) for message in before):
        raise BadRow("nothing precedes the last assistant turn")
    is_plain = is_single and len(messages) == 2 and conversation.tools is None
    if is_plain and not any(key in message for message in messages for key in (*_OTHER_KEYS, WEIGHT)):
        return CanonicalText(prompt, response)
    content: Mapping[str, Any] = {"messages": messages, "tools": conversation.tools}
    extra = encode_json(content, option=orjson.OPT_SORT_KEYS).decode()
    return CanonicalText(prompt, response, extra)


def count_answer_bytes(conversation: Conversation, *, only_last: bool) -> int:
    """Return the UTF-8 bytes of what a model learns to say: words, reasoning and tool calls.

    Args:
        conversation: of one row.
        only_last: count the last turn that is learned, and not all of them.
    """
    learned = [turn for turn in conversation.messages if turn["role"] == "assistant" and turn.get(WEIGHT) != 0]
    sizes = [sum(len(text.encode()) for text in _list_words(turn)) for turn in learned]
    sizes = [size for size in sizes if size]
    return sum(sizes[-1:] if only_last else sizes)


def _list_words(turn: Mapping[str, Any]) -> list[str]:
    texts = [turn.get(key) for key in ("content", "reasoning_content", "thinking")]
    calls = turn.get("tool_calls")
    texts += [encode_json(calls).decode()] if calls else []
    return [text for text in texts if isinstance(text, str)]


def _read_text(message: Mapping[str, Any]) -> str:
    """Return a message's content, or its tool calls as JSON where it has no content."""
    if message["content"] is not None and not is_blank(message["content"]):
        return str(message["content"])
    if "tool_calls" in message:
        text = encode_json(message["tool_calls"]).decode()
        if "\\u0000" in text:
            raise BadRow("a tool call holds a NUL character")
        return text
    return message["content"] or ""
