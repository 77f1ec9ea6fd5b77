"""JSON files that are neither lines nor an array: tables by column, and objects put otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from thresher.artifacts.json_text import parse_json
from thresher.dataset.formats.files import PlainFile
from thresher.dataset.formats.json_rows import BYTE_ORDER_MARK
from thresher.errors import InputError

_LARGEST_OBJECT = 512 << 20  # bytes of a file that is parsed as a whole
_REQUIRED = "one JSON object on each line is required, found"


def parse_one_object(file: PlainFile) -> Mapping[str, Any] | None:
    """Return the content of a file that is one JSON object; None for any other."""
    if file.n_plain > _LARGEST_OBJECT:
        return None
    with file.reader() as reader:
        text = reader.read(0, file.n_plain).removeprefix(BYTE_ORDER_MARK)
    try:
        content = parse_json(text)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None


def is_list_of_objects(value: Any) -> bool:
    """Tell whether a value is a list of objects, empty or not."""
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def read_columns(content: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of a table that pandas, or another program, wrote by column; else None.

    Args:
        content: of a file that is one object: {"text": {"0": ...}}, {"text": [...]}, pandas'
            orientations "index", "split" and "table".
    """
    values = list(content.values())
    if values and all(isinstance(value, dict) and value for value in values):
        return _read_labeled(content)
    if isinstance(content.get("schema"), dict) and is_list_of_objects(content.get("data")):
        return [{name: value for name, value in row.items() if name != "index"} for row in content["data"]]
    names, data = content.get("columns"), content.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        is_table = all(isinstance(name, str) for name in names) and all(len(row) == len(names) for row in data)
        return [dict(zip(names, row, strict=True)) for row in data] if is_table else None
    return _read_lists(content)


def _read_labeled(content: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the rows of {column: {label of the row: value}}, or of {label: {column: value}}."""
    first = next(iter(content.values()))
    if any(column.keys() != first.keys() for column in content.values()):
        return None
    are_rows_inside = all(label.isdigit() for label in first)
    if not are_rows_inside and all(label.isdigit() for label in content):
        return [dict(row) for row in content.values()]
    if not are_rows_inside and len(first) <= len(content):
        return None  # nobody can tell which are the columns
    return [{name: column[label] for name, column in content.items()} for label in first]


def _read_lists(content: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of {column: [value, ...]}, but not of lists of rows or of turns."""
    values = list(content.values())
    are_columns = len(values) > 1 and all(isinstance(value, list) and len(value) > 1 for value in values)
    if not are_columns or any(isinstance(one, dict) for value in values for one in value):
        return None
    if len({len(value) for value in values}) > 1:
        return None
    return [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]


def advise_list(content: Mapping[str, Any] | None) -> str:
    """Say where the rows seem to be in a file that is one object, such as {"data": [...]}."""
    values = [(key, value) for key, value in (content or {}).items() if isinstance(value, list) and value]
    lists = [f"'{key}'" for key, value in values if all(isinstance(row, dict) for row in value)]
    if not lists:
        return ""
    return f"; the file is one object: write its list {' or '.join(lists[:3])} to a separate file"


def refuse_other_shapes(name: str, head: bytes) -> None:
    """Refuse a file whose objects do not stand on one line each.

    Args:
        name: of the file, of whose lines at most half are objects.
        head: its first bytes.

    Raises:
        InputError: lines end in a comma, or objects are on several lines or several on one.
    """
    text = head.decode(errors="replace").lstrip()
    try:
        content, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(content, dict):
        return
    behind = text[end:].split("\n", 1)[0].strip()
    if "\n" in text[:end]:
        raise InputError(
            f"{name}: {_REQUIRED} objects that are pretty-printed over several lines; write {_advise(text[end:])}"
        )
    if behind == ",":
        raise InputError(
            f"{name}: {_REQUIRED} lines that end in a comma; remove the commas with: "
            "sed 's/,[[:space:]]*$//' FILE > NEW"
        )
    if behind.lstrip(", ").startswith("{"):
        raise InputError(f"{name}: {_REQUIRED} objects without line feeds between them; write {_advise(behind)}")


def _advise(behind: str) -> str:
    if behind.lstrip().startswith(","):
        return "the objects between [ and ] into a file that ends in .json"
    return "one on each line with: jq -c . FILE > NEW"


def dump_rows(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
