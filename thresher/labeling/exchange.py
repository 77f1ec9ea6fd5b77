"""The rows to label as annotators' tools read them: Label Studio, Argilla, JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson

from thresher.artifacts.folder import write_atomic
from thresher.artifacts.json_text import encode_json
from thresher.errors import InputError, first_three

ROW_ID = "thresher_row_id"
ASK, LABEL_STUDIO, LABEL_STUDIO_FORM, ARGILLA = "ask.jsonl", "label-studio.json", "label-studio.xml", "argilla.jsonl"
TEXT = "_text"  # of a row to label, as it was read; not written
FROM_NAME = "label"  # of the question, in the files of the tools


def format_label(value: Any) -> str | None:
    """Return a label as text, 1.0 and 1 alike and as rows are read; None for an empty one or NaN.

    Raises:
        InputError: it is several values, or an object.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | tuple) and value:
        raise InputError(
            f"one label per row is required, found {first_three(list(map(str, value)))}; keep one of them, or join "
            f"them into a label of its own, such as '{'+'.join(map(str, value[:3]))}'"
        )
    if isinstance(value, Mapping):
        raise InputError(f"a label must be a text or a number, found {str(value)[:60]}")
    if value is None or isinstance(value, list | tuple) or value != value:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def list_label_values(given: Sequence[Any]) -> dict[str, Any]:
    """Return label -> value as it was given, where all are numbers or all booleans; else nothing.

    Rows of numbers and of texts in one column are read by few tools: a label that is written beside
    others has their type.

    Args:
        given: labels as they stand in the rows.
    """
    values = [value for value in given if isinstance(value, bool | int | float) and value == value]
    others = any(isinstance(value, str) and value.strip() for value in given)
    if others or len({isinstance(value, bool) for value in values}) != 1:
        return {}
    return {str(format_label(value)): value for value in values}


def restore_label(label: str, values: Mapping[str, Any]) -> Any:
    """Return a label as a value of the type that `list_label_values` found, if it can be one."""
    if label in values or not values:
        return values.get(label, label)
    for kind in (int, float):
        if any(type(value) is kind for value in values.values()):
            with suppress(ValueError):
                if format_label(kind(label)) == label:
                    return kind(label)
    return label


def write_jsonl(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as JSON lines."""
    write_atomic(path, b"".join(encode_json(row) + b"\n" for row in rows))


def write_label_studio(rows: Sequence[dict[str, Any]], texts: Sequence[str], classes: Sequence[str], out: Path) -> None:
    """Write tasks and the labeling form of Label Studio.

    Args:
        rows: to label, with `ROW_ID`.
        texts: of them.
        classes: labels to choose from; none for an answer in words.
        out: folder.
    """
    tasks = [
        {"data": {"text": text, ROW_ID: row[ROW_ID], "why": row["thresher_why"]}}
        for row, text in zip(rows, texts, strict=True)
    ]
    write_atomic(out / LABEL_STUDIO, encode_json(tasks, option=orjson.OPT_INDENT_2))
    choices = "".join(f"\n    <Choice value={quoteattr(name)}/>" for name in classes)
    question = (
        f'  <Choices name="{FROM_NAME}" toName="text" choice="single" required="true">{choices}\n  </Choices>'
        if classes
        else f'  <TextArea name="{FROM_NAME}" toName="text" required="true" maxSubmissions="1"/>'
    )
    form = f'<View>\n  <Text name="text" value="$text"/>\n{question}\n</View>\n'
    write_atomic(out / LABEL_STUDIO_FORM, form.encode())


def write_argilla(rows: Sequence[dict[str, Any]], texts: Sequence[str], path: Path) -> None:
    """Write records for `dataset.records.log` of Argilla 2, with a field `text`."""
    write_jsonl(
        [{"id": row[ROW_ID], "text": text, "why": row["thresher_why"]} for row, text in zip(rows, texts, strict=True)],
        path,
    )
