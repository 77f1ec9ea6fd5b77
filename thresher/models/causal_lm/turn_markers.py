"""Turn markers in the texts of rows: the words by which a chat template tells turns apart.

A tokenizer reads "<|im_end|>" in a question as the end of the turn, wherever it stands. Rows have
such words because they are in a chat template already, because answers were saved with the model's
end token, or because somebody writes about them, or wants to be obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

from thresher.models.causal_lm.template_text import Message, template_errors, write_text
from thresher.models.settings import Treatment

HOLDS_MARKERS = (
    "its text holds turn markers of the model's chat template; --special-tokens strip takes them off, escape reads "
    "them as plain text"
)
HAD_END = "answers ended in the model's end token, which is learned once"
ESCAPED = "turn markers in the text are read as plain text"
STRIPPED = "turn markers were taken off the text"
KEPT = "plain texts hold turn markers of the model, which are learned as they stand (--special-tokens strip or escape)"

_THOUGHT = re.compile(r"</?think>")
_SHORTEST = 4  # characters of a marker that is no special token
_QUESTION, _ANSWER = ("x1question1x", "x2question2x"), ("x1answer1x", "x2answer2x")


@dataclass(frozen=True)
class TurnMarkers:
    """How the chat template of a tokenizer tells turns apart.

    Attributes:
        pattern: finds a marker in a text; None where there is none.
        ends: what ends an assistant turn or a text, the longest first.
        before: what stands before the first question, without BOS; "" where it is not known.
        to_answer: what stands between a question and its answer.
        to_question: what stands between an answer and the next question.
    """

    pattern: re.Pattern[str] | None
    ends: tuple[str, ...]
    before: str = ""
    to_answer: str = ""
    to_question: str = ""

    def strip_end(self, text: str) -> str:
        """Return an answer without end tokens at its end."""
        stripped = text.rstrip()
        end = next((end for end in self.ends if stripped.endswith(end)), None)
        return text if end is None else self.strip_end(stripped[: -len(end)])


_known: WeakKeyDictionary[Any, tuple[Any, TurnMarkers]] = WeakKeyDictionary()


def find_markers(tokenizer: Any) -> TurnMarkers:
    """Return the markers of a tokenizer's chat template, found by showing it a conversation."""
    state = (str(tokenizer.chat_template), tokenizer.bos_token, tokenizer.eos_token, len(tokenizer))
    if tokenizer not in _known or _known[tokenizer][0] != state:
        _known[tokenizer] = (state, _find_markers(tokenizer))
    return _known[tokenizer][1]


def _find_markers(tokenizer: Any) -> TurnMarkers:
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content}
    borders = {token for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) if token}
    before, to_answer, to_question, end = _show_turns(tokenizer)
    # the source of the template has those of tools and pictures
    around = "".join((before, to_answer, to_question, end, _show_system(tokenizer), str(tokenizer.chat_template)))
    markers = (borders | {token for token in special if token in around}) - {tokenizer.unk_token}
    markers = {marker for marker in markers if not _THOUGHT.fullmatch(marker)}  # answers may think
    words = _list_words(to_answer, special) | _list_words(to_question, special)
    ends = {token for token in special if end.strip().startswith(token)} | ({tokenizer.eos_token} - {None})
    patterns = [re.escape(marker) for marker in sorted(markers, key=len, reverse=True)]
    # words without brackets, as "### user:", stand for themselves where they do not begin a line
    patterns += [re.escape(word) if word[0] in "<[" else rf"^{re.escape(word)}" for word in sorted(words)]
    pattern = re.compile("|".join(patterns), re.MULTILINE) if patterns else None
    return TurnMarkers(pattern, tuple(sorted(ends, key=len, reverse=True)), before, to_answer, to_question)


def _show_turns(tokenizer: Any) -> tuple[str, str, str, str]:
    """Return what the template writes before, between and behind two questions and answers."""
    turns = [
        {"role": role, "content": words}
        for pair in zip(_QUESTION, _ANSWER, strict=True)
        for role, words in zip(("user", "assistant"), pair, strict=True)
    ]
    if tokenizer.chat_template is None:
        return "", "", "", ""
    try:
        text = write_text(tokenizer, turns, None, add_generation_prompt=False)
    except template_errors():
        return "", "", "", ""
    places = [text.find(turn["content"]) for turn in turns]
    if -1 in places or places != sorted(places):
        return "", "", "", ""
    borders = [(place, place + len(turn["content"])) for place, turn in zip(places, turns, strict=True)]
    to_answer, to_question, _ = (text[end:start] for (_, end), (start, _) in pairwise(borders))
    return text[: places[0]].removeprefix(tokenizer.bos_token or ""), to_answer, to_question, text[borders[-1][1] :]


def _show_system(tokenizer: Any) -> str:
    """Return a system turn and a question in the template; "" where it takes no system turn."""
    turns = [{"role": "system", "content": _ANSWER[0]}, {"role": "user", "content": _QUESTION[0]}]
    try:
        return (
            "" if tokenizer.chat_template is None else write_text(tokenizer, turns, None, add_generation_prompt=False)
        )
    except template_errors():
        return ""


def _list_words(between: str, special: set[str]) -> set[str]:
    """Return the markers between turns that are no special tokens, such as "### user:"."""
    for token in sorted(special, key=len, reverse=True):
        between = between.replace(token, "\n")
    words = {line.strip() for line in _THOUGHT.sub("\n", between).splitlines()}
    return {word for word in words if len(word) >= _SHORTEST and not word.isalnum()}


@dataclass(frozen=True)
class CleanConversation:
    """A conversation as it is shown to a chat template.

    Attributes:
        messages: of the row, without what the treatment takes off.
        tools: likewise.
        problem: `HOLDS_MARKERS`, or None.
        note: what was done with the markers, or None where there were none.
    """

    messages: Sequence[Message]
    tools: Sequence[Any] | None
    problem: str | None = None
    note: str | None = None


def clean_conversation(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None, treatment: Treatment | None
) -> CleanConversation:
    """Treat the turn markers in the texts of a conversation; an end token behind an answer goes.

    Args:
        tokenizer: with a chat template.
        messages: of the row.
        tools: of the row, or None.
        treatment: what to do with other markers; None is "refuse".
    """
    markers = find_markers(tokenizer)
    if not _holds(markers, [messages, tools]):
        return CleanConversation(messages, tools)
    ended = [_strip_end(markers, message) for message in messages]
    if not _holds(markers, [ended, tools]):
        return CleanConversation(ended, tools, note=HAD_END)
    if treatment == "escape":
        changed, tools = _change(markers, [ended, tools], _escape)
        return CleanConversation(changed, tools, note=ESCAPED)
    if treatment == "strip":
        turns = _read_template(tokenizer, markers, ended) or ended
        changed, tools = _change(markers, [turns, tools], lambda _: "")
        return CleanConversation(changed, tools, note=STRIPPED)
    return CleanConversation(messages, tools, problem=HOLDS_MARKERS)


def clean_text(tokenizer: Any, text: str, treatment: Treatment | None) -> tuple[str, str | None, str | None]:
    """Return a plain text without end tokens at its end, with its note and its problem.

    None as treatment leaves the markers in it as they stand.
    """
    markers = find_markers(tokenizer)
    stripped = markers.strip_end(text)
    if not _holds(markers, stripped):
        return stripped, None if stripped == text else HAD_END, None
    if treatment == "escape":
        return _change(markers, stripped, _escape), ESCAPED, None
    if treatment == "strip":
        return _change(markers, stripped, lambda _: ""), STRIPPED, None
    return stripped, KEPT if treatment is None else None, HOLDS_MARKERS if treatment == "refuse" else None


def _holds(markers: TurnMarkers, value: Any) -> bool:
    """Tell whether any text inside of a value holds a marker."""
    if markers.pattern is None:
        return False
    if isinstance(value, str):
        return bool(markers.pattern.search(value))
    if isinstance(value, Mapping):
        return any(_holds(markers, member) for member in value.values())
    return isinstance(value, list | tuple) and any(_holds(markers, member) for member in value)


def _change(markers: TurnMarkers, value: Any, write: Callable[[str], str]) -> Any:
    """Return a value with each marker in its texts written otherwise."""
    if isinstance(value, str) and markers.pattern is not None:
        changed = markers.pattern.sub(lambda match: write(match[0]), value)
        # taking one marker off can make another of what stood around it
        return changed if changed == value else _change(markers, changed, write)
    if isinstance(value, Mapping):
        return {key: _change(markers, member, write) for key, member in value.items()}
    return [_change(markers, member, write) for member in value] if isinstance(value, list | tuple) else value


def _escape(marker: str) -> str:
    """Return a marker as text: with a space behind its first character."""
    return f"{marker[0]} {marker[1:]}"


def _strip_end(markers: TurnMarkers, message: Message) -> Message:
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str):
        return message
    return {**message, "content": markers.strip_end(content)}


def _read_template(tokenizer: Any, markers: TurnMarkers, messages: Sequence[Message]) -> list[Message] | None:
    """Return the turns that a question in the model's template holds, with the row's answer.

    Returns:
        The messages; None where the question is not the whole of a conversation in the template.
    """
    is_pair = [message["role"] for message in messages] == ["user", "assistant"]
    opening = _find_header(markers)
    if not is_pair or not opening or not markers.to_answer.strip() or not isinstance(messages[1].get("content"), str):
        return None
    answer = messages[1]["content"]
    system, *pairs = re.split(_ignore_space(opening), messages[0]["content"] + answer, maxsplit=1)
    shown = _read_system(tokenizer, markers, system.strip().removeprefix(tokenizer.bos_token or ""))
    if not pairs or shown is None:
        return None
    turns: list[Message] = []
    for pair in re.split(_ignore_space(markers.to_question), pairs[0]):
        words = re.split(_ignore_space(markers.to_answer), pair)
        if len(words) != len(_QUESTION):
            return None
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), words, strict=True)]
    if turns[-1]["content"] == answer.strip():
        turns[-1] = messages[1]
    return None if _holds(markers, turns) else [*shown, *turns]


def _ignore_space(words: str) -> str:
    """Return a pattern of words with any white space between and around them."""
    return "\\s*" + "\\s*".join(map(re.escape, words.split())) + "\\s*"


def _find_header(markers: TurnMarkers) -> str:
    """Return what stands before a question, without what ends the turn before it."""
    end = next((end for end in markers.ends if markers.to_question.strip().startswith(end)), "")
    return markers.to_question.strip().removeprefix(end)


def _read_system(tokenizer: Any, markers: TurnMarkers, text: str) -> list[Message] | None:
    """Return the system turn in what stands before the first question, if any; None if unknown."""
    if not text.strip() or text.strip() == markers.before.strip().removesuffix(_find_header(markers).strip()).strip():
        return []
    shown = _show_system(tokenizer).removeprefix(tokenizer.bos_token or "").partition(_find_header(markers).strip())[0]
    head, found, tail = (part.strip() for part in shown.partition(_ANSWER[0]))
    text = text.strip()
    if not (found and text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail)):
        return None
    content = text[len(head) : len(text) - len(tail)].strip()
    return None if _holds(markers, content) else [{"role": "system", "content": content}]
