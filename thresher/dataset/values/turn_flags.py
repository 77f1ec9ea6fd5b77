"""Flags of turns: which assistant turns of a conversation are context alone and not learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thresher.dataset.rejection import BadRow, describe_type

WEIGHT = "weight"  # in `Conversation.messages`: 0 for a turn that is not learned, else absent
# "mask": see `_find_hidden`
_LEARNED_IF_TRUE = ("train", "training", "loss", "loss_mask", WEIGHT)
_LEARNED_IF_FALSE = ("masked",)
_PARTS = ("train_detail", "training_detail")  # which parts of a turn are learned
FLAGS = frozenset((*_LEARNED_IF_TRUE, *_LEARNED_IF_FALSE, *_PARTS, "mask"))
_TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def parse_flags(turns: Sequence[Mapping[str, Any]], roles: Sequence[str], field: str) -> list[bool]:
    """Tell of each turn whether it may be learned; those of other roles than "assistant" may.

    Args:
        turns: of one row, as the row has them.
        roles: of the turns, as chat templates call them.
        field: the column, for messages.

    Raises:
        BadRow: a flag of an assistant turn cannot be read, or two of them disagree.
    """
    hidden = _find_hidden(turns, roles, field)
    return [
        role != "assistant" or _is_learned(turn, is_hidden, field)
        for turn, role, is_hidden in zip(turns, roles, hidden, strict=True)
    ]


def _is_learned(turn: Mapping[str, Any], is_hidden: bool | None, field: str) -> bool:
    if any(turn.get(name) for name in _PARTS):
        raise BadRow(f"a message of '{field}' says which parts of it are learned, which is not supported")
    says = {name: _parse_truth(turn, name, field) for name in _LEARNED_IF_TRUE}
    says |= {name: _negate(_parse_truth(turn, name, field)) for name in _LEARNED_IF_FALSE}
    says["mask"] = _negate(is_hidden)
    answers = {name: answer for name, answer in says.items() if answer is not None}
    if len(set(answers.values())) > 1:
        raise BadRow(f"the flags {', '.join(answers)} of a message of '{field}' disagree on whether it is learned")
    return all(answers.values())


def _find_hidden(turns: Sequence[Mapping[str, Any]], roles: Sequence[str], field: str) -> list[bool | None]:
    """Tell of each turn whether its `mask` hides it; None where it has none.

    The word is used both ways. Where all turns of other roles have one value and an assistant turn
    has the other, theirs hides, since they are never learned. Else true hides, as in torchtune's
    `masked`, and so does the number 0, as in a mask that the loss is multiplied by.
    """
    masks = [_parse_truth(turn, "mask", field) for turn in turns]
    own = {mask for mask, role in zip(masks, roles, strict=True) if role == "assistant" and mask is not None}
    others = {mask for mask, role in zip(masks, roles, strict=True) if role != "assistant" and mask is not None}
    if len(others) == 1 and own - others:
        return [None if mask is None else mask in others for mask in masks]
    is_number = [not isinstance(turn.get("mask"), bool) for turn in turns]
    return [_negate(mask) if number else mask for mask, number in zip(masks, is_number, strict=True)]


def _parse_truth(turn: Mapping[str, Any], name: str, field: str) -> bool | None:
    value = turn.get(name)
    truth = _TRUTHS.get(str(value).strip().lower())
    if value is not None and truth is None:
        got = "another number" if isinstance(value, int | float) else describe_type(value)
        raise BadRow(f"'{name}' of a message of '{field}' must be true, false, 0 or 1, found {got}")
    return truth


def _negate(truth: bool | None) -> bool | None:
    return None if truth is None else not truth
