"""Rows as token ids with the tokens to learn; what is cut and what is left out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thresher.errors import InputError, first_three
from thresher.models.causal_lm.chat_template import mark_tokens, render, start_tokens
from thresher.models.causal_lm.turn_markers import clean_text
from thresher.models.settings import Treatment
from thresher.trainer.settings import Task

if TYPE_CHECKING:
    from thresher.dataset import Dataset

IGNORED = -100  # label of a token that is not learned: the ignore_index of torch's cross-entropy
CUT_AWAY = "nothing of the response is within max_length"
NO_TOKEN = "the response has no token"
UNKNOWN_LABEL = "its label does not occur in the training rows"


@dataclass(frozen=True)
class Example:
    """One row, ready for the model.

    Attributes:
        row_id: of the row.
        input_ids: (t,) token ids.
        labels: (t,) the token itself where it is learned, IGNORED elsewhere; classification: (1,)
            the class.
        weight: how much each of its predictions counts in the loss.
    """

    row_id: str
    input_ids: list[int]
    labels: list[int]
    weight: float = 1.0

    @property
    def n_learned(self) -> int:
        """Number of predictions that count: nothing predicts the first token of a text."""
        return 1 if len(self.labels) == 1 else sum(label != IGNORED for label in self.labels[1:])


@dataclass
class Examples:
    """The usable rows of a dataset, and how many of the others are left out for which reason.

    Attributes:
        max_length: tokens per row.
        rows: usable rows, in the order of the dataset.
        position: of each in the dataset.
        left_out: number of rows by reason.
        n_truncated: rows that were cut at max_length.
        n_tokens_cut: tokens that were cut from them.
        notes: number of rows by what was done with turn markers in their texts.
    """

    max_length: int
    rows: list[Example] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    n_truncated: int = 0
    n_tokens_cut: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Return the number of usable rows."""
        return len(self.rows)

    @property
    def n_tokens(self) -> int:
        """Tokens the model reads in one pass over the rows."""
        return sum(len(row.input_ids) for row in self.rows)

    def counts(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "rows": len(self),
            "tokens": self.n_tokens,
            "tokens_learned": sum(row.n_learned for row in self.rows),
            "rows_truncated": self.n_truncated,
            "tokens_cut": self.n_tokens_cut,
            "rows_left_out": dict(sorted(self.left_out.items())),
            **({"rows_with_markers": dict(sorted(self.notes.items()))} if self.notes else {}),
        }

    def add(self, position: int, row_id: str, ids: list[int], labels: list[int]) -> None:
        """Add a row, cut to max_length; one with nothing to learn is counted and left out."""
        n_cut = len(ids) - self.max_length
        whole, labels = labels, labels[: self.max_length]
        is_class = len(whole) == 1 and whole[0] != IGNORED  # else one label per token
        if not is_class and all(label == IGNORED for label in labels[1:]):
            self.left_out[CUT_AWAY if n_cut > 0 else NO_TOKEN] += 1
            return
        if n_cut > 0:
            self.n_truncated += 1
            self.n_tokens_cut += n_cut
        self.rows.append(Example(row_id, ids[: self.max_length], labels))
        self.position.append(position)


def tokenize(
    rows: Dataset,
    tokenizer: Any,
    *,
    task: Task,
    max_length: int,
    loss_on: str,
    classes: Sequence[str] | None = None,
    special_tokens: Treatment | None = None,
) -> Examples:
    """Turn rows into examples.

    Args:
        rows: of the kind that the task needs.
        tokenizer: a fast one (it knows the character offsets of its tokens), with a chat template
            for "sft".
        task: "sft" learns the assistant's turns, "text" every token, "classification" the label.
        max_length: tokens per row.
        loss_on: turns that are learned, for "sft".
        classes: labels in the order of the head's outputs; rows of another label are left out and
            counted.
        special_tokens: what to do with turn markers in the texts, for "sft" and "text".

    Raises:
        InputError: the tokenizer is a slow one.
    """
    if not tokenizer.is_fast:
        raise InputError(f"model: needs a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}")
    examples = Examples(max_length)
    if task == "classification":
        _add_classification(examples, rows, tokenizer, {name: code for code, name in enumerate(classes or ())})
    elif task == "sft":
        _add_conversations(examples, rows, tokenizer, loss_on, special_tokens)
    else:
        _add_texts(examples, rows, tokenizer, special_tokens)
    return examples


def _encode(tokenizer: Any, texts: list[str], *, special: bool, offsets: bool = False) -> Any:
    if not texts:
        return {"input_ids": [], "offset_mapping": []}
    return tokenizer(
        texts,
        add_special_tokens=special,
        return_offsets_mapping=offsets,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # its warning about long texts: they are cut and counted here
    )


def _add_classification(examples: Examples, rows: Dataset, tokenizer: Any, code: dict[str, int]) -> None:
    """Cut before the special tokens at the end, so that a closing one ([SEP]) stays."""
    frame = rows.frame.select("row_id", "prompt", "response")
    encoded = _encode(tokenizer, frame["prompt"].to_list(), special=True)["input_ids"]
    n_opening, n_closing = _count_special_tokens(tokenizer)
    for position, (row_id, _, label) in enumerate(frame.iter_rows()):
        if label not in code:
            examples.left_out[UNKNOWN_LABEL] += 1
            continue
        ids = encoded[position]
        examples.add(position, row_id, ids, [code[label]])
        if len(ids) > examples.max_length > n_opening + n_closing:  # end as a whole row does
            examples.rows[-1].input_ids[examples.max_length - n_closing :] = ids[len(ids) - n_closing :]


def _count_special_tokens(tokenizer: Any) -> tuple[int, int]:
    """Return how many special tokens a tokenizer puts before a text, and how many behind it."""
    is_special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    places = [place for place, special in enumerate(is_special) if not special]  # of the text
    return (places[0], len(is_special) - 1 - places[-1]) if places else (0, 0)


def _add_conversations(
    examples: Examples, rows: Dataset, tokenizer: Any, loss_on: str, special_tokens: Treatment | None
) -> None:
    conversations = rows.messages(range(len(rows)))
    rendered = [
        render(tokenizer, each.messages, each.tools, loss_on=loss_on, special_tokens=special_tokens)
        for each in conversations
    ]
    usable = [position for position, each in enumerate(rendered) if each.problem is None]
    examples.left_out.update(each.problem for each in rendered if each.problem is not None)
    examples.notes.update(each.note for each in rendered if each.problem is None and each.note is not None)
    encoded = _encode(tokenizer, [rendered[position].text for position in usable], special=False, offsets=True)
    row_ids = rows.frame["row_id"]
    for position, ids, offsets in zip(usable, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        labels = build_labels(ids, offsets, rendered[position].spans)
        head = start_tokens(tokenizer, ids, is_asked=bool(labels) and labels[0] != IGNORED)
        examples.add(position, row_ids[position], head + ids, [IGNORED] * len(head) + labels)


def _add_texts(examples: Examples, rows: Dataset, tokenizer: Any, special_tokens: Treatment | None) -> None:
    """Every token is learned, the first one after the start of a text, and so is its end."""
    cleaned = [clean_text(tokenizer, text, special_tokens) for text in rows.frame["response"]]
    usable = [position for position, (_, _, problem) in enumerate(cleaned) if problem is None]
    examples.left_out.update(problem for _, _, problem in cleaned if problem is not None)
    examples.notes.update(note for _, note, problem in cleaned if problem is None and note is not None)
    encoded = _encode(tokenizer, [cleaned[position][0] for position in usable], special=False)["input_ids"]
    tail = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    row_ids = rows.frame["row_id"]
    for position, text in zip(usable, encoded, strict=True):
        head, ids = start_tokens(tokenizer, text, is_asked=True), text + tail
        examples.add(position, row_ids[position], head + ids, [IGNORED] * len(head) + ids)


def build_labels(ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]) -> list[int]:
    """Return the labels of a text: a token is learned when it holds a character of a span."""
    return [code if learned else IGNORED for code, learned in zip(ids, mark_tokens(spans, offsets), strict=True)]


def truncate_prompt(ids: list[int], room: int, *, bos: int | None) -> list[int]:
    """Return the last `room` tokens of a longer prompt, after the BOS if it starts with one."""
    if len(ids) <= room:
        return ids
    # BOS stays first when it was, and at least one token of the prompt's end follows it
    head = ids[:1] if ids[:1] == [bos] and room > 1 else []
    return head + ids[len(ids) - max(1, room) + len(head) :]


def find_end_tokens(examples: Examples, tokenizer: Any) -> frozenset[int]:
    """Return the special tokens that end what is learned, in rows that are not cut.

    A chat template may end a turn with another token than the one the tokenizer and the model name
    as the end, as Qwen's base models do; an answer must stop there too.
    """
    special = {code for code, token in tokenizer.added_tokens_decoder.items() if token.special}
    last = (
        next((label for label in reversed(row.labels) if label != IGNORED), IGNORED)
        for row in examples.rows
        if len(row.input_ids) < examples.max_length
    )
    return frozenset(special.intersection(last))


def require_rows(examples: Examples, what: str, *, n_vocabulary: int | None = None) -> None:
    """Refuse to go on without rows, saying why there are none, or with tokens the model lacks.

    Args:
        examples: the rows.
        what: they are for, in messages.
        n_vocabulary: token ids that the weights have, where it is known.

    Raises:
        InputError: there is no usable row, or a token without weights, which a GPU would not
            survive.
    """
    if not len(examples):
        reasons = [f"{count} rows: {reason}" for reason, count in sorted(examples.left_out.items())]
        raise InputError(
            f"{what}: at least one usable row is needed, found none ({first_three(reasons) or 'it is empty'})"
        )
    unknown = [row for row in examples.rows if n_vocabulary is not None and max(row.input_ids) >= n_vocabulary]
    if unknown:
        raise InputError(
            f"{what}: token ids must be below {n_vocabulary:,}, the size of the model's vocabulary, and its tokenizer "
            f"gave higher ones in {len(unknown)} rows (first: {first_three([row.row_id for row in unknown])}); tokens "
            f"were added to it that the weights do not have"
        )
