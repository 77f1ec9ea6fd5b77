"""Tools and their calls, which the texts of conversations do not show, as keys to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl

from thresher.artifacts.json_text import encode_json
from thresher.dataset import Dataset
from thresher.dataset.conversation import Conversation
from thresher.numeric.arrays import Bool


def describe_calls(sides: Sequence[Dataset], is_asked: Bool, *, is_prompt: bool = False) -> pl.Series:
    """Return tools and calls of each row as JSON, (n,); "" where there are none, or nobody asked.

    Args:
        sides: rows, one dataset after the other.
        is_asked: (n,) rows whose conversations are looked at.
        is_prompt: leave out the calls of the answer, the last turn.
    """
    parts, first = [], 0
    for rows in sides:
        at = np.flatnonzero(is_asked[first : first + len(rows)])
        first += len(rows)
        keys = pl.Series([""], dtype=pl.String).new_from_index(0, len(rows))
        if rows.kind == "sft" and len(at):
            found = [_describe(conversation, is_prompt=is_prompt) for conversation in rows.messages(at)]
            keys = keys.scatter(at, pl.Series(found, dtype=pl.String))
        parts.append(keys)
    return pl.concat(parts)


def _describe(conversation: Conversation, *, is_prompt: bool) -> str:
    turns = conversation.messages
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
    turns = turns[: last if is_prompt else last + 1]
    calls = [_drop_id(call) for turn in turns for call in turn.get("tool_calls") or ()]
    if not calls and not conversation.tools:
        return ""
    content = {"calls": calls, "tools": conversation.tools}
    return encode_json(content, option=orjson.OPT_SORT_KEYS).decode()


def _drop_id(call: Any) -> Any:
    """Return a call without its id, which says nothing."""
    return {key: value for key, value in call.items() if key != "id"} if isinstance(call, dict) else call
