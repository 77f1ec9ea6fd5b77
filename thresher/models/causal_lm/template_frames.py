"""How known families of chat templates frame turns, to recognize rows that are in one already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from thresher.models.causal_lm.template_text import Message

_PAIR = ("user", "assistant")


@dataclass(frozen=True)
class TemplateFrame:
    """What a chat template writes around turns; white space does not count.

    Attributes:
        opening: before a question that begins the conversation.
        to_answer: between a question and its answer.
        to_question: between an answer and the next question.
        system: before and behind the text of a system turn, both "" where it is not known.
        preamble: what stands before the first question where the row has no system turn.
        bos: what begins the text.
    """

    opening: str
    to_answer: str
    to_question: str
    system: tuple[str, str] = ("", "")
    preamble: str = ""
    bos: str = ""

    def read(self, messages: Sequence[Message]) -> list[Message] | None:
        """Return the turns that a question in the template holds, with the row's answer.

        Args:
            messages: a question and an answer, without an end token behind it.

        Returns:
            The turns; None where the two are not a whole conversation in the template.
        """
        question, answer = (message.get("content") for message in messages)
        if not (
            self.opening.strip() and self.to_answer.strip() and isinstance(question, str) and isinstance(answer, str)
        ):
            return None
        begin, *rest = re.split(_ignore_space(self.opening), question + answer, maxsplit=1)
        system = self._read_system(begin.strip().removeprefix(self.bos).strip())
        if not rest or system is None:
            return None
        turns: list[Message] = []
        for pair in re.split(_ignore_space(self.to_question), rest[0]):
            words = re.split(_ignore_space(self.to_answer), pair)
            if len(words) != len(_PAIR):
                return None
            turns += [{"role": role, "content": text} for role, text in zip(_PAIR, words, strict=True)]
        if turns[-1]["content"] == answer.strip():
            # one space belongs to templates that write one; more are the answer's own, as in code
            text = answer[1:] if answer.startswith(" ") and not answer.startswith("  ") else answer
            turns[-1] = {**messages[-1], "content": text}
        return [*system, *turns]

    def _read_system(self, text: str) -> list[Message] | None:
        """Return the system turn in what stands before the first question; None if unknown."""
        if text in ("", self.preamble.strip()):
            return []
        head, tail = (part.strip() for part in self.system)
        if not (head and text.startswith(head) and text.endswith(tail) and len(text) > len(head) + len(tail)):
            return None
        return [{"role": "system", "content": text[len(head) : len(text) - len(tail)].strip()}]


def _ignore_space(words: str) -> str:
    """Return a pattern of words with any white space between and around them."""
    return "\\s*" + "\\s*".join(map(re.escape, words.split())) + "\\s*"


def _frame_roles(before: str, behind: str, end: str, names: tuple[str, str, str]) -> TemplateFrame:
    """Return the frame of a template that writes the name of the role before each turn."""
    system, user, assistant = (f"{before}{name}{behind}" for name in names)
    return TemplateFrame(user, f"{end} {assistant}", f"{end} {user}", (system, end))


_ROLES = ("system", "user", "assistant")
KNOWN_FRAMES = (
    _frame_roles("<|im_start|>", "\n", "<|im_end|>", _ROLES),
    _frame_roles("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", _ROLES),
    _frame_roles("<start_of_turn>", "\n", "<end_of_turn>", ("system", "user", "model")),
    *(_frame_roles("<|", "|>", end, _ROLES) for end in ("<|end|>", "</s>", "<|endoftext|>")),
    *(TemplateFrame("[INST]", "[/INST]", between) for between in ("</s><s>[INST]", "</s>[INST]")),
)
_BEGINNINGS = ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>")
KNOWN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>", "<|end|>", "<|endoftext|>", "<|end_of_text|>")
_OPENINGS = re.compile("|".join(re.escape(frame.opening.strip()) for frame in KNOWN_FRAMES))


def read_known_template(messages: Sequence[Message]) -> list[Message] | None:
    """Return the turns that a question in the template of a known family holds, if it is in one."""
    if [message["role"] for message in messages] != list(_PAIR) or not _OPENINGS.search(messages[0]["content"] or ""):
        return None
    question = messages[0]["content"].lstrip()
    begin = next((word for word in _BEGINNINGS if question.startswith(word)), "")
    bare = [{**messages[0], "content": question.removeprefix(begin)}, messages[1]]
    return next((turns for frame in KNOWN_FRAMES if (turns := frame.read(bare)) is not None), None)


def strip_known_end(text: str) -> str:
    """Return an answer without the end token of a known family behind it."""
    stripped = text.rstrip()
    end = next((end for end in KNOWN_ENDS if stripped.endswith(end)), None)
    return text if end is None else stripped[: -len(end)].rstrip()
