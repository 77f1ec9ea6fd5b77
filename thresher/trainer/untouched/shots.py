"""Prompts with training rows in them: the nearest to each question, the most similar last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thresher.dataset import Dataset
from thresher.dataset.conversation import Conversation
from thresher.errors import InputError
from thresher.models.causal_lm.chat_template import render, render_prompt, start_tokens
from thresher.models.encoders.load import load_encoder, resolve_encoder
from thresher.numeric.arrays import Int64
from thresher.trainer.context import RunContext
from thresher.trainer.engine.tokenization import IGNORED, Example, build_labels
from thresher.trainer.held_out import HeldOut

ROOM = 4096  # tokens of a prompt with examples and its answer, where the model reads as many
BLOCK = 1024  # questions whose nearest rows are searched at once
PLAIN_ROLES = frozenset({"system", "user", "assistant"})

Turns = list[dict[str, Any]]


@dataclass(frozen=True)
class ShotRows:
    """The held-out rows of a call with examples in their prompts.

    Attributes:
        held_out: rows and prompts, ready for the model.
        mean_shots: examples in a prompt, on average: fewer than asked for where they did not fit.
    """

    held_out: HeldOut
    mean_shots: float


def put_examples(context: RunContext, held_out: HeldOut, k: int) -> ShotRows:
    """Return the held-out rows with the k nearest training rows in each prompt, cut to fit.

    The examples stand as turns between the row's system turn and its first question, so that the
    model's chat template writes them; only the row's own answer counts. Of examples that do not
    fit, the least similar are left out.

    Args:
        context: with the training rows.
        held_out: of the same context, with rows of kind "sft".
        k: examples, at least 1.

    Raises:
        InputError: no training row can be an example.
    """
    examples = _list_examples(context.split.train)
    if not examples:
        raise InputError("shots: a training row without tools is needed as an example, found none; use --shots 0")
    positions = held_out.examples.position
    prompts = held_out.rows.frame["prompt"]
    nearest = find_nearest(
        [prompts[position] for position in positions],
        [context.split.train.frame["prompt"][position] for position, _ in examples],
        k,
    )
    rows: list[Example] = []
    tokens: dict[int, list[int]] = {}
    counts: list[int] = []
    conversations = held_out.rows.messages(positions)
    for number, (row, own) in enumerate(zip(held_out.examples.rows, conversations, strict=True)):
        chosen = [examples[index][1] for index in nearest[number][::-1]]  # the most similar last
        has_answer = number in held_out.prompts
        example, prompt, n_shots = _fit(context, row, own, chosen, has_answer=has_answer)
        rows.append(example)
        counts.append(n_shots)
        if has_answer:
            tokens[number] = held_out.prompts[number] if prompt is None else prompt
    usable = replace(held_out.examples, rows=rows)
    return ShotRows(replace(held_out, examples=usable, prompts=tokens), float(np.mean(counts)))


def find_nearest(questions: Sequence[str], examples: Sequence[str], k: int) -> Int64:
    """Return the k nearest examples of each question by cosine, the nearest first: (n, at most k).

    Cosines are compared to six digits, and what is equal goes to the first example.
    """
    encoder = load_encoder(resolve_encoder(None))
    x, y = encoder.encode(questions), encoder.encode(examples)
    width = min(k, len(examples))
    nearest = np.empty((len(x), width), dtype=np.int64)
    for start in range(0, len(x), BLOCK):
        similarity = np.round(x[start : start + BLOCK] @ y.T, 6)
        nearest[start : start + BLOCK] = np.argsort(-similarity, axis=1, kind="stable")[:, :width]
    return nearest


def _list_examples(rows: Dataset) -> list[tuple[int, Turns]]:
    """Return (position, turns) of the rows that can be examples: no tools, no system turn."""
    conversations = rows.messages(range(len(rows)))
    return [
        (position, [_unlearned(turn) for turn in each.messages if turn["role"] != "system"])
        for position, each in enumerate(conversations)
        if each.tools is None
        and all(turn["role"] in PLAIN_ROLES and not turn.get("tool_calls") for turn in each.messages)
    ]


def _unlearned(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn whose words do not count towards the loss."""
    plain = {"role": turn["role"], "content": turn["content"]}
    return plain if turn["role"] != "assistant" else {**plain, "weight": 0}


def _fit(
    context: RunContext, row: Example, own: Conversation, chosen: Sequence[Turns], *, has_answer: bool
) -> tuple[Example, list[int] | None, int]:
    """Return the row with as many of the examples as fit, its prompt, and their number.

    With none that fits, the row is as it is, and its prompt None.
    """
    settings = context.settings
    room = min(context.base.max_positions or ROOM, max(ROOM, int(settings.max_length or 0)))
    n_system = sum(turn["role"] == "system" for turn in own.messages[:1])
    for n_shots in range(len(chosen), 0, -1):
        shots = [turn for turns in chosen[len(chosen) - n_shots :] for turn in turns]
        messages = [*own.messages[:n_system], *shots, *own.messages[n_system:]]
        ids, labels = _encode(context, messages, own.tools)
        if labels is None or len(ids) > room:
            continue
        if sum(label != IGNORED for label in labels[1:]) != row.n_learned:
            continue  # another answer would be measured: cut, or changed by the template
        if not has_answer:
            return Example(row.row_id, ids, labels), None, n_shots
        prompt = _encode_prompt(context, messages, own.tools)
        if len(prompt) + settings.max_new_tokens <= room:
            return Example(row.row_id, ids, labels), prompt, n_shots
    return row, None, 0


def _encode(context: RunContext, messages: Turns, tools: list[Any] | None) -> tuple[list[int], list[int] | None]:
    """Return tokens and labels of a conversation; None where the template cannot show it."""
    tokenizer, settings = context.tokenizer, context.settings
    rendered = render(tokenizer, messages, tools, loss_on=settings.loss_on, special_tokens=settings.special_tokens)
    if rendered.problem is not None:
        return [], None
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = encoded["input_ids"]
    labels = build_labels(ids, encoded["offset_mapping"], rendered.spans)
    head = start_tokens(tokenizer, ids, is_asked=bool(labels) and labels[0] != IGNORED)
    return head + ids, [IGNORED] * len(head) + labels


def _encode_prompt(context: RunContext, messages: Turns, tools: list[Any] | None) -> list[int]:
    tokenizer = context.tokenizer
    text = render_prompt(tokenizer, messages, tools, special_tokens=context.settings.special_tokens)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [*start_tokens(tokenizer, ids, is_asked=False), *ids]
