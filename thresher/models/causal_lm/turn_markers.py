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

from thresher.models.causal_lm.template_frames import TemplateFrame, read_known_template, strip_known_end
from thresher.models.causal_lm.template_text import Message, template_errors, write_text
from thresher.models.settings import Treatment

HOLDS_MARKERS = (
    "its text contains turn markers of the model's chat template; --special-tokens strip removes them, escape "
    "reads them as plain text"
)
HAD_END = "answers ended in the model's end token, which is learned once"
ESCAPED = "turn markers in the text are read as plain text"
STRIPPED = "turn markers were removed from the text"
KEPT = "plain texts contain turn markers of the model, which are learned unchanged (unless --special-tokens is given)"

FOREIGN = (
    "texts contain the chat template or end token of other models, which is read as text (--special-tokens "
    "strip removes it)"
)

_THOUGHT = re.compile(r"</?think>")
_SHORTEST = 4  # characters of a marker that is no special token
_QUESTION, _ANSWER = ("x1question1x", "x2question2x"), ("x1answer1x", "x2answer2x")


@dataclass(frozen=True)
class TurnMarkers:
    """How the chat template of a tokenizer tells turns apart.

    Attributes:
        pattern: finds a marker in a text; None where there is none.
        ends: what ends an assistant turn or a text, the longest first.
        frame: what the template writes around turns.
    """

    pattern: re.Pattern[str] | None
    ends: tuple[str, ...]
    frame: TemplateFrame

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
    ends_first = tuple(sorted(ends, key=len, reverse=True))
    return TurnMarkers(pattern, ends_first, _find_frame(tokenizer, ends_first, before, to_answer, to_question))


def _find_frame(tokenizer: Any, ends: Sequence[str], before: str, to_answer: str, to_question: str) -> TemplateFrame:
    """Return the frame of the tokenizer's own template."""
    opening = to_question.strip()  # but for what ends the turn before
    opening = opening.removeprefix(next((end for end in ends if opening.startswith(end)), "")).strip()
    if not opening:
        return TemplateFrame("", "", "")  # what tells a question from an answer is not known
    bos = tokenizer.bos_token or ""
    head, _, tail = _show_system(tokenizer).removeprefix(bos).partition(opening)[0].partition(_ANSWER[0])
    preamble = before.strip().removesuffix(opening)
    return TemplateFrame(opening, to_answer, to_question, (head, tail), preamble, bos)


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
        return _clean_foreign(messages, tools, treatment)
    ended = [_strip_end(markers, message) for message in messages]
    if not _holds(markers, [ended, tools]):
        return CleanConversation(ended, tools, note=HAD_END)
    if treatment == "escape":
        changed, tools = _change(markers, [ended, tools], _escape)
        return CleanConversation(changed, tools, note=ESCAPED)
    if treatment == "strip":
        turns = _read_template(markers, ended) or ended
        changed, tools = _change(markers, [turns, tools], lambda _: "")
        return CleanConversation(changed, tools, note=STRIPPED)
    return CleanConversation(messages, tools, problem=HOLDS_MARKERS)


def _read_template(markers: TurnMarkers, messages: Sequence[Message]) -> list[Message] | None:
    """Return the turns that a row in the model's own template holds, None if it is not in it."""
    if [message["role"] for message in messages] != ["user", "assistant"]:
        return None
    turns = markers.frame.read(messages)
    return None if turns is None or _holds(markers, turns) else turns


def _clean_foreign(
    messages: Sequence[Message], tools: Sequence[Any] | None, treatment: Treatment | None
) -> CleanConversation:
    """Recognize a conversation that is in the template of another family of models."""
    ended = [
        {**message, "content": strip_known_end(message["content"])}
        if message.get("role") == "assistant" and isinstance(message.get("content"), str)
        else message
        for message in messages
    ]
    turns = read_known_template(ended)
    if turns is None and ended == list(messages):
        return CleanConversation(messages, tools)
    if treatment == "strip":
        return CleanConversation(turns or ended, tools, note=STRIPPED)
    if treatment == "refuse":
        return CleanConversation(messages, tools, problem=HOLDS_MARKERS)
    return CleanConversation(messages, tools, note=FOREIGN)


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
