"""Answers of annotators: JSON lines, tables, and the files of Label Studio and Argilla."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.fetch import localize
from thresher.errors import InputError, first_three
from thresher.labeling.exchange import FROM_NAME, ROW_ID, format_label

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
        place = f"{name} entry {number}"
        try:
            given = [(format_label(value), by) for value, by in _list_labels(entry, label_column)]
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        answers += [Answer(row_id, label, by, place) for label, by in given if label is not None]
    if n_without_id:
        found = first_three([str(key) for key in (entries[0] if entries else {})])
        raise InputError(
            f"{name}: each answer must name its row, {n_without_id:,} do not (columns: {found}); give {FORMS}"
        )
    return answers


def _parse(path: Path) -> list[Any]:
    """Return the entries of a file."""
    path = expand_path(localize(path))
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
            # `splitlines` would also split at U+2028, which may stand in a text
            entries = [json.loads(line) for line in text.split("\n") if line.strip()]
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


def _list_labels(entry: Mapping[str, Any], label_column: str) -> Iterator[tuple[Any, str]]:
    """Yield each label of an entry and who gave it.

    Where the column of labels is there and empty, no other column answers: it may be the user's.
    """
    if isinstance(entry.get("annotations"), list):
        yield from _list_label_studio(entry["annotations"])
        return
    if isinstance(entry.get("responses"), Mapping | list):
        yield from _list_argilla(entry["responses"])
        return
    responses = entry.get(f"{FROM_NAME}.responses")
    if isinstance(responses, list):  # a record of Argilla in the form of a data set
        users = entry.get(f"{FROM_NAME}.responses.users") or [""] * len(responses)
        yield from ((value, str(by)) for value, by in zip(responses, users, strict=True))
        return
    name = next((name for name in (label_column, *LABELS) if name in entry), None)
    if name is not None:
        yield entry[name], str(entry.get("annotator") or entry.get("by") or "")


def _list_label_studio(annotations: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    for each in annotations:
        if not isinstance(each, Mapping) or each.get("was_cancelled"):
            continue
        by = each.get("completed_by")
        results = each.get("result") or []
        if not isinstance(results, list) or not all(isinstance(result, Mapping) for result in results):
            raise InputError(f"the result of an annotation must be a list of objects, found {json.dumps(results)[:60]}")
        for result in results:
            value = result.get("value", {})
            chosen = (value.get("choices") or value.get("text")) if isinstance(value, Mapping) else value
            yield chosen, str(by.get("email", "") if isinstance(by, Mapping) else by or "")


def _list_argilla(responses: Any) -> Iterator[tuple[Any, str]]:
    """Yield the submitted responses: {"label": [{"value": ..., "user_id": ..., "status": ...}]}."""
    listed = responses.get(FROM_NAME, []) if isinstance(responses, Mapping) else responses
    for each in listed or []:
        if not isinstance(each, Mapping) or each.get("status", "submitted") != "submitted":
            continue
        values = each.get("values")
        of_question = values.get(FROM_NAME) if isinstance(values, Mapping) else None
        value = each.get("value", of_question.get("value") if isinstance(of_question, Mapping) else of_question)
        yield value, str(each.get("user_id") or "")
