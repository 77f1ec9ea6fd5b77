"""Preference data: pairs of answers, and answers that are marked as wanted or not.

Of pairs one answer is not to be learned, and of marked rows some are not: trl and LLaMA-Factory
call these KTO data. `--wanted COLUMN` keeps the wanted rows; without it such rows are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thresher.dataset.rejection import BadRow, describe_type
from thresher.dataset.schema import MAP_SYNTAX, Schema
from thresher.errors import InputError

_LABEL = "label"  # trl's and ms-swift's mark; of rows of other schemas it may be anything else
_MARKS = frozenset(
    {
        _LABEL,
        *("kto_tag", "kto_label", "kto", "is_kto"),
        *("desirable", "is_desirable", "preferred", "is_preferred", "chosen", "is_chosen", "wanted", "is_wanted"),
        *("thumbs_up", "thumb_up", "thumbs", "is_good", "good"),
    }
)
_COUNTER_MARKS = frozenset(
    {"rejected", "is_rejected", "undesirable", "is_undesirable", "unwanted", "is_unwanted", "thumbs_down", "is_bad"}
)
_PROMPTS = ("prompt", "instruction", "question", "query", "input")  # before pairs of answers
REJECTED_PREFIX = "rejected_"  # of the names of answers that are not to be learned
MARK_NAMES = _MARKS | _COUNTER_MARKS
_WANTED = frozenset(
    {
        "true",
        "t",
        "yes",
        "y",
        "1",
        "1.0",
        "+1",
        "desirable",
        "chosen",
        "wanted",
        "preferred",
        "good",
        "thumbs_up",
        "👍",
        "up",
        "like",
        "liked",
    }
)
_UNWANTED = frozenset(
    {
        *("false", "f", "no", "n", "0", "0.0", "-1", "-1.0", "undesirable", "rejected", "unwanted"),
        *("dispreferred", "bad", "thumbs_down", "👎", "down", "dislike", "disliked"),
    }
)


def parse_mark(value: Any) -> bool | None:
    """Return whether a mark says wanted or unwanted; None for a value that is no mark."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return True if value == 1 else False if value in (0, -1) else None
    if isinstance(value, str):
        word = value.strip().casefold()
        return True if word in _WANTED else False if word in _UNWANTED else None
    return None


def refuse_unwanted(row: Mapping[str, Any], column: str) -> None:
    """Raise BadRow for a row that its mark does not call wanted."""
    value = row.get(column)
    if value is None or value == "":
        state = "missing" if column not in row else "null" if value is None else "empty"
        raise BadRow(f"field '{column}' is {state}, so the row is not marked as wanted")
    mark = parse_mark(value)
    if mark is None:
        raise BadRow(f"field '{column}' must be true or false, or 1 or 0, found {describe_type(value)}")
    if not mark:
        raise BadRow(f"the row is not wanted: field '{column}' is false")


def refuse_pairs(rows: Sequence[Mapping[str, Any]], *, where: str) -> None:
    """Refuse rows that hold a chosen and a rejected answer.

    Raises:
        InputError: the rows are pairs of answers.
    """
    pairs = [row for row in rows if _is_answer(row.get("chosen")) and _is_answer(row.get("rejected"))]
    if pairs:
        raise InputError(
            f"{where}: rows with 'chosen' and 'rejected' are preference data, which thresher does not select; "
            f"to use the chosen answers as training rows give {_map_chosen(pairs[0])}"
        )


def refuse_marks(columns: Mapping[str, Sequence[Any]], schema: Schema, *, names: Sequence[str], where: str) -> None:
    """Refuse rows that are marked as wanted or not, or that have a rejected answer beside theirs.

    Args:
        columns: that are not read -> a value of each kind that the usable rows have there.
        schema: by which the rows were read.
        names: all columns of the file.
        where: name of the file, for messages.

    Raises:
        InputError: the rows are preference data, and the user did not say which are wanted.
    """
    if schema.wanted is not None:
        return
    for name, values in columns.items():
        if schema.name != "mapped" and schema.kind != "classification":
            _refuse_rejected_answers(values, name, _write_map(schema, names), where=where)
        if _is_marked(values, name, schema):
            _refuse_column(values, name, schema, _write_map(schema, names), where=where)


def _map_chosen(row: Mapping[str, Any]) -> str:
    """Return the option that reads the chosen answers, behind a prompt or as conversations."""
    prompts = [name for name in _PROMPTS if _is_answer(row.get(name))]
    if prompts:
        return f"--map prompt={prompts[0]},response=chosen"
    if isinstance(row["chosen"], list):
        return "--map messages=chosen"
    return f"--map text=chosen, or {MAP_SYNTAX}"


def _is_answer(value: Any) -> bool:
    return isinstance(value, str | list | dict) and bool(value) and parse_mark(value) is None


def _refuse_rejected_answers(values: Sequence[Any], name: str, columns: str, *, where: str) -> None:
    folded = name.casefold()
    if not (folded == "rejected" or folded.startswith(REJECTED_PREFIX)) or folded == "rejected_reason":
        return
    if any(map(_is_answer, values)):
        raise InputError(
            f"{where}: rows with '{name}' are preference data, which thresher does not select; "
            f"to use the other answers as training rows give --map {columns}"
        )


def _is_marked(values: Sequence[Any], name: str, schema: Schema) -> bool:
    """Tell whether a column marks rows as wanted or not."""
    folded = name.casefold()
    filled = [value for value in values if value is not None and value != ""]
    if folded not in MARK_NAMES or not filled:
        return False
    if schema.kind == "classification" and not folded.startswith("kto"):
        return False
    if schema.kind == "text" and folded == _LABEL:
        return False  # of a text that the user asked to read as plain text
    if schema.name == "mapped" and folded == _LABEL and not any(_is_truth(value) for value in filled):
        return False  # numbers that the user left out when naming the columns
    return any(isinstance(value, bool) for value in filled) or all(parse_mark(value) is not None for value in filled)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().casefold() in {"true", "false"})


def _refuse_column(values: Sequence[Any], name: str, schema: Schema, columns: str, *, where: str) -> None:
    if name.casefold() in _COUNTER_MARKS:
        advice = "leave out the rows that it marks, and the column"
    else:
        advice = f"give --wanted {name} to keep the rows that it marks as wanted"
        advice += f" (of this source alone: {where}:wanted={name})"
        if name.casefold() == _LABEL and schema.name != "mapped" and not any(map(_is_truth, values)):
            advice += f"; numbers 0 and 1 that mean something else are ignored with --map {columns}"
    raise InputError(
        f"{where}: rows of schema '{schema.name}' with the mark '{name}' (true or false) are preference data, "
        f"in which some answers must not be learned; {advice}"
    )


def _write_map(schema: Schema, names: Sequence[str]) -> str:
    parts = []
    for role, columns in schema.columns.items():
        present = [name for name in columns if name in names]
        if present and role not in {"system", "history", "tools"}:
            parts.append(f"{role}={'+'.join(present)}")
    return ",".join(parts)
