"""The form in which a chat template shows tool calls, found by trying it on the conversation.

Templates differ: most write the arguments of a call from an object (`arguments | tojson`, or one
item after the other), some take them as JSON text; some know a turn that only calls by its content
being none, others print that as "None" or cannot add it to text; some refuse ids that have not nine
letters. Which one a template is, its text does not say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Message = Mapping[str, Any]

_NAME, _KEY = "probedcall", "probedkey"  # stand in for names and arguments of calls
_ID_LETTERS = 9
Blank = Literal["own", "empty", "absent", "none"]
BLANKS: tuple[Blank, ...] = get_args(Blank)


@dataclass(frozen=True)
class CallForm:
    """How calls are given to a template.

    Attributes:
        has_text: arguments are JSON text.
        blank: content of turns that only call: as the row has it (where it is null, the key is left
            out), an empty text, left out, or none.
        has_short_ids: ids of calls are nine letters, made from the row's.
    """

    has_text: bool = False
    blank: Blank = "own"
    has_short_ids: bool = False


def fit_calls(
    messages: Sequence[Message], show: Callable[[Sequence[Message]], str], errors: tuple[type[Exception], ...]
) -> list[Message] | None:
    """Return a conversation with its tool calls in the form that the template shows.

    Args:
        messages: of one row.
        show: renders messages.
        errors: by which it says that the template refuses them.

    Returns:
        The messages; None where the template shows none of the calls, in whatever form.
    """
    messages = [_without_no_calls(message) for message in messages]
    if not any("tool_calls" in message for message in messages):
        return messages
    refusal: Exception | None = None
    is_hidden = False
    for form in _list_forms(messages):
        if form.has_short_ids and is_hidden:
            break  # the ids are not what is amiss
        try:
            if _is_shown(messages, form, show, errors):
                return write_form(messages, form)
            is_hidden = True
        except errors as error:
            refusal = refusal or error
    if refusal is not None and not is_hidden:
        raise refusal
    return None


def _without_no_calls(message: Message) -> Message:
    """Return a message without an empty list of calls, whose presence alone some templates read."""
    if "tool_calls" not in message or message["tool_calls"]:
        return message
    return {key: value for key, value in message.items() if key != "tool_calls"}


def _list_forms(messages: Sequence[Message]) -> Iterator[CallForm]:
    has_blank = any("tool_calls" in message and not message.get("content") for message in messages)
    for has_short_ids in (False, True):
        for has_text in (False, True):
            for blank in BLANKS if has_blank else BLANKS[:1]:
                yield CallForm(has_text, blank, has_short_ids)


def _is_shown(
    messages: Sequence[Message],
    form: CallForm,
    show: Callable[[Sequence[Message]], str],
    errors: tuple[type[Exception], ...],
) -> bool:
    """Tell whether a template shows every call of a conversation as it should, and no "None"."""
    probe = [_write_probe(message, turn) for turn, message in enumerate(messages)]
    text = show(write_form(probe, form))
    names = [unwrap_call(call)["name"] for message in probe for call in message.get("tool_calls", ())]
    is_python, is_quoted_twice = f"{{'{_KEY}'" in text, f'{{\\"{_KEY}' in text
    if is_python or is_quoted_twice or not all(name in text for name in names):
        return False
    if form.blank != "none" or "None" not in text:
        return True
    try:
        without = show(write_form(probe, replace(form, blank="empty")))
    except errors:
        return True
    return text.count("None") <= without.count("None")


def _write_probe(message: Message, turn: int) -> Message:
    if "tool_calls" not in message:
        return message
    calls = deepcopy(message["tool_calls"])
    for number, call in enumerate(calls):
        unwrap_call(call).update({"name": f"{_NAME}{turn}x{number}x", "arguments": {_KEY: "x"}})
    return {**message, "tool_calls": calls}


def unwrap_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a call that holds name and arguments: in OpenAI's form, its function."""
    function = call.get("function")
    return function if isinstance(function, dict) else call


def write_form(messages: Sequence[Message], form: CallForm) -> list[Message]:
    """Return messages with their calls in a form."""
    return [_write_calls(message, form, turn) for turn, message in enumerate(messages)]


def _write_calls(message: Message, form: CallForm, turn: int) -> Message:
    if form.has_short_ids and message.get("role") == "tool":
        return {**message, "tool_call_id": _shorten_id(message.get("tool_call_id") or "")}
    if "tool_calls" not in message:
        return message
    calls = deepcopy(message["tool_calls"])
    for call in calls:
        function = unwrap_call(call)
        if "arguments" in function:
            function["arguments"] = _write_arguments(function["arguments"], has_text=form.has_text)
        if form.has_short_ids:
            call["id"] = _shorten_id(call.get("id") or "")
    written = {**message, "tool_calls": calls}
    content = message.get("content")
    if form.blank != "own" and not content:
        content = "" if form.blank == "empty" else None
    written["content"] = content
    if content is None and form.blank != "none":
        del written["content"]
    return written


def _write_arguments(arguments: Any, *, has_text: bool) -> Any:
    if has_text:
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        return arguments
    try:
        decoded = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return decoded if isinstance(decoded, dict) else arguments


def _shorten_id(name: str) -> str:
    if len(name) == _ID_LETTERS and name.isalnum():
        return name
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_ID_LETTERS]
