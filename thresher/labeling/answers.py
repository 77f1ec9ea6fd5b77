"""Answers of annotators: JSON lines, tables, and the files of Label Studio and Argilla."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from thresher.artifacts.local_path import expand_path
from thresher.errors import InputError, first_three
from thresher.labeling.exchange import FROM_NAME, ROW_ID

IDS = (ROW_ID, "row_id", "id")  # columns that name the row, the first one that is there
LABELS = (FROM_NAME, "answer", "choice", "response")
FORMS = (
    "JSON lines or CSV with the columns thresher_row_id and label, or an export of Label Studio (JSON, JSON-MIN, CSV) "
    "or of Argilla (JSON)"
)


class Answer(NamedTuple):
    """One annotator's label of one row.

    Attributes:
        row_id: of the row.
        label: its label.
        by: who gave it, "" where that is not known.
        place: file and entry, for messages.
    """

    row_id: str
    label: str
    by: str
    place: str


def read_answers(source: Any, label_column: str) -> list[Answer]:
    """Return all answers of a file, or of a list of dicts; rows without one are passed over.

    Args:
        source: path, or rows in memory.
        label_column: where labels stand in the rows that were asked.

    Raises:
        InputError: the file cannot be read, or names no rows.
    """
    name, entries = (str(source), _parse(Path(source))) if isinstance(source, str | Path) else ("answers", list(source))
    answers: list[Answer] = []
    n_without_id = 0
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            raise InputError(f"{name}: each answer must be an object, found {json.dumps(entry)[:60]} in entry {number}")
        row_id = _find_id(entry)
        if row_id is None:
            n_without_id += 1
            continue
        for label, by in _list_labels(entry, label_column):
            answers.append(Answer(row_id, label.strip(), by, f"{name} entry {number}"))
    if n_without_id:
        found = first_three([str(key) for key in (entries[0] if entries else {})])
        raise InputError(
            f"{name}: each answer must name its row, {n_without_id:,} do not (columns: {found}); give {FORMS}"
        )
    return [answer for answer in answers if answer.label]


def _parse(path: Path) -> list[Any]:
    """Return the entries of a file."""
    path = expand_path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path}: answers must be readable, found '{reason}'; give {FORMS}") from None
    if path.suffix.lower() in (".csv", ".tsv"):
        dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
        return list(csv.DictReader(io.StringIO(text, newline=""), dialect=dialect))
    try:
        if text.lstrip().startswith("["):
            entries = json.loads(text)
        else:
            entries = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: answers must be JSON, found '{error}'; give {FORMS}") from None
    return list(entries)


def _find_id(entry: Mapping[str, Any]) -> str | None:
    """Return the row that an entry is about: Label Studio's own `id` counts tasks, and is none."""
    data = entry.get("data")
    if isinstance(data, Mapping) and ROW_ID in data:
        return str(data[ROW_ID])
    metadata = entry.get("metadata")
    if isinstance(metadata, Mapping) and ROW_ID in metadata:
        return str(metadata[ROW_ID])
    return next((str(entry[name]) for name in IDS if entry.get(name) not in (None, "")), None)


def _list_labels(entry: Mapping[str, Any], label_column: str) -> Iterator[tuple[str, str]]:
    """Yield each label of an entry and who gave it."""
    if isinstance(entry.get("annotations"), list):
        yield from _list_label_studio(entry["annotations"])
        return
    if isinstance(entry.get("responses"), Mapping | list):
        yield from _list_argilla(entry["responses"])
        return
    responses = entry.get(f"{FROM_NAME}.responses")
    if isinstance(responses, list):  # a record of Argilla in the form of a data set
        users = entry.get(f"{FROM_NAME}.responses.users") or [""] * len(responses)
        yield from ((_format(value), str(by)) for value, by in zip(responses, users, strict=True) if value is not None)
        return
    for name in dict.fromkeys((label_column, *LABELS)):
        value = entry.get(name)
        if value not in (None, "", []):
            yield _format(value), str(entry.get("annotator") or entry.get("by") or "")
            return


def _list_label_studio(annotations: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for each in annotations:
        if not isinstance(each, Mapping) or each.get("was_cancelled"):
            continue
        by = each.get("completed_by")
        for result in each.get("result") or []:
            value = result.get("value", {}) if isinstance(result, Mapping) else {}
            chosen = value.get("choices") or value.get("text")
            if chosen:
                yield _format(chosen), str(by.get("email", "") if isinstance(by, Mapping) else by or "")


def _list_argilla(responses: Any) -> Iterator[tuple[str, str]]:
    """Yield the submitted responses: {"label": [{"value": ..., "user_id": ..., "status": ...}]}."""
    listed = responses.get(FROM_NAME, []) if isinstance(responses, Mapping) else responses
    for each in listed or []:
        if not isinstance(each, Mapping) or each.get("status", "submitted") != "submitted":
            continue
        value = each.get("value", (each.get("values") or {}).get(FROM_NAME, {}).get("value"))
        if value is not None:
            yield _format(value), str(each.get("user_id") or "")


def _format(value: Any) -> str:
    """Return a label as text; a list of one choice is that choice.

    Raises:
        InputError: there are several choices.
    """
    if isinstance(value, list):
        if len(value) != 1:
            raise InputError(f"answers: one label per row is required, found {first_three(list(map(str, value)))}")
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)
