"""Rows as tokens, with those of the response marked: what a language model is asked about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from thresher.artifacts.json_text import encode_json, parse_json
from thresher.models.causal_lm.chat_template import (
    HIDES_CALLS,
    NO_ASSISTANT,
    REWRITES,
    REWRITES_LAST,
    TEMPLATE_REFUSES,
    mark_tokens,
    render,
    start_tokens,
)
from thresher.models.causal_lm.likelihood import TokenRow
from thresher.models.causal_lm.turn_markers import HOLDS_MARKERS, clean_conversation, clean_text
from thresher.models.settings import Treatment

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.models.causal_lm.language_model import LanguageModel

RECIPE = "scored-rows-5"
SLICE_ROWS = 16_384  # conversations turned into Python objects at a time

# Why a row has no scored token; its place is its code in the cache, so new ones go to the end. 0:
# it has some.
PROBLEMS = (
    "",
    "nothing of the response is within max_length",
    "the response has no token",
    "there is no assistant turn to score",
    "the chat template rewrites earlier turns, so their tokens cannot be located",
    "the chat template renders the last turn differently from its prompt, so its tokens cannot be located",
    "the chat template refuses the conversation",
    "the chat template does not render tool calls, so turns with tool calls cannot be used",
    HOLDS_MARKERS,
)
CUT_AWAY, NO_TOKEN = 1, 2
_REFUSED, _MARKED = 6, 8
_RENDERING = {NO_ASSISTANT: 3, REWRITES: 4, REWRITES_LAST: 5, HIDES_CALLS: 7, HOLDS_MARKERS: _MARKED}


@dataclass(frozen=True)
class TokenizedRow:
    """The tokens that a model reads of a row.

    Attributes:
        row: its tokens, BOS first; empty where there is a problem.
        n_cut: tokens of the response that are behind max_length.
        problem: index into PROBLEMS, 0 for none.
    """

    row: TokenRow
    n_cut: int
    problem: int

    @property
    def n_scored(self) -> int:
        """Number of scored tokens."""
        return int(self.row.is_scored.sum())


def describe_problems(codes: Iterable[int]) -> pl.Series:
    """Return the reasons behind places in PROBLEMS, (n,) string, null where there is no problem."""
    return pl.Series("missing", [PROBLEMS[int(code)] or None for code in codes], dtype=pl.String)


def row_texts(dataset: Dataset) -> pl.Series:
    """Return what the model is shown of each row, as JSON: (n,) string, equal for equal rows only.

    A conversation is {"messages", "tools"} with every turn, a classified text one question and its
    label as the answer, a plain text {"text"}. The order of keys counts, since a chat template may
    print them.
    """
    if dataset.kind == "text":
        return pl.Series("row", [_json({"text": text}) for text in dataset.frame["response"]], dtype=pl.String)
    if dataset.kind == "classification":
        pairs = dataset.frame.select("prompt", "response").iter_rows()
        return pl.Series("row", [_json({"messages": _turns(*pair), "tools": None}) for pair in pairs], dtype=pl.String)
    texts: list[str] = []
    for start in range(0, len(dataset), SLICE_ROWS):
        conversations = dataset.messages(range(start, min(start + SLICE_ROWS, len(dataset))))
        texts += [
            _json({"messages": conversation.messages, "tools": conversation.tools}) for conversation in conversations
        ]
    return pl.Series("row", texts, dtype=pl.String)


def _json(content: Any) -> str:
    return encode_json(content).decode()


def _turns(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


@dataclass(frozen=True, kw_only=True)
class RowTokenizer:
    """Turns the texts of `row_texts` into tokens.

    A row is tokenized once, as a whole; the tokens of the response are found by their character
    offsets. The text starts as `chat.start_tokens` says, in training too.

    Attributes:
        lm: whose tokenizer and chat template are used; its weights are not.
        loss_on: turns that are scored: "last-assistant" or "all-assistant".
        max_length: tokens of a row, BOS included; what is behind is cut.
        special_tokens: what is done with turn markers in the texts.
    """

    lm: LanguageModel
    loss_on: str
    max_length: int
    special_tokens: Treatment | None = None

    @property
    def how(self) -> str:
        """What of the settings decides how a row is read, for fingerprints."""
        treatment = "" if self.special_tokens is None else f"-{self.special_tokens}"
        return f"{RECIPE}-{self.loss_on}-{self.max_length}{treatment}"

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedRow]:
        """Return the tokens of each row."""
        rendered = [self._render(parse_json(text)) for text in texts]
        usable = [i for i, (_, _, problem) in enumerate(rendered) if not problem]
        nothing = TokenRow(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.bool_))
        tokenized = [TokenizedRow(nothing, 0, problem) for _, _, problem in rendered]
        if not usable:
            return tokenized
        encoded = tokenize_with_offsets(self.lm.tokenizer, [rendered[i][0] for i in usable])
        for i, (ids, offsets) in zip(usable, encoded, strict=True):
            tokenized[i] = self._tokenize_text(ids, mark_tokens(rendered[i][1], offsets))
        return tokenized

    def count_markers(self, texts: pl.Series) -> dict[str, int]:
        """Return in how many rows turn markers were treated in which way, those left out apart."""
        notes = Counter[str]()
        for text in texts:
            content = parse_json(text)
            if "text" in content:
                _, note, problem = clean_text(self.lm.tokenizer, content["text"], self.special_tokens)
            else:
                clean = clean_conversation(
                    self.lm.tokenizer, content["messages"], content["tools"], self.special_tokens
                )
                note, problem = clean.note, clean.problem
            notes.update([note] if note is not None and problem is None else [])
        return dict(sorted(notes.items()))

    def _render(self, content: dict[str, Any]) -> tuple[str, Sequence[tuple[int, int]], int]:
        """Return the text, the characters to score, and the problem."""
        tokenizer = self.lm.tokenizer
        if "text" in content:
            # the end of a text is learned, so it is scored
            text, _, problem = clean_text(tokenizer, content["text"], self.special_tokens)
            text += tokenizer.eos_token or ""
            return text, [(0, len(text))], 0 if problem is None else _MARKED
        conversation = render(
            tokenizer,
            content["messages"],
            content["tools"],
            loss_on=self.loss_on,
            special_tokens=self.special_tokens,
        )
        if conversation.problem is None:
            return conversation.text, conversation.spans, 0
        if conversation.problem.startswith(TEMPLATE_REFUSES):
            return "", (), _REFUSED
        return "", (), _RENDERING[conversation.problem]

    def _tokenize_text(self, ids: list[int], is_in: list[bool]) -> TokenizedRow:
        head = start_tokens(self.lm.tokenizer, ids, is_asked=is_in[0]) if ids else []
        ids, is_in = [*head, *ids], [False] * len(head) + is_in
        is_scored = np.array(is_in, dtype=np.bool_)
        row = TokenRow(np.array(ids[: self.max_length], dtype=np.int32), is_scored[: self.max_length])
        n_cut = int(is_scored[self.max_length :].sum())
        problem = 0 if row.is_scored.any() else CUT_AWAY if n_cut else NO_TOKEN
        return TokenizedRow(row, n_cut, problem)


def tokenize_with_offsets(tokenizer: Any, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Return each text's token ids and their [start, end) characters, without special tokens."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # its warning about long texts: they are cut and counted by the caller
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def without_prompt(row: TokenRow, start_id: int) -> TokenRow:
    """Return a row's scored tokens behind the start of a text: the same, given nothing else."""
    ids = np.concatenate([np.array([start_id], dtype=np.int32), row.ids[row.is_scored]])
    return TokenRow(ids, np.arange(len(ids)) > 0)
