"""Labels: the same class is written the same way, and nothing else is joined."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from thresher.dataset.conversation import WHITE_SPACE
from thresher.dataset.rejection import BadRow, describe_type
from thresher.errors import InputError
from thresher.numeric.units import format_count

_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*")
_DECIMAL = re.compile(r"[+-]?\d+\.\d+")
_ARRAY = re.compile(r"\[[\s\d.,+-]*\]")  # as numpy writes numbers
_LIST, _EMPTY = "a list", ("[]", "{}", "()")
_MOSTLY = 0.9  # share of the labels that are numbers where the others, such as "n/a", are names
_SEPARATORS = re.compile(r"[,;|]")
_JOINTS = re.compile(r"[\s_\-]+")


def clean_label(text: str, name: str, *, are_numbers: bool) -> str:
    """Return a label without white space at its ends, in NFC, and a whole number without a point.

    Args:
        text: a label that is not blank.
        name: of its column.
        are_numbers: the labels of the column are numbers, of which some were written as "1.0".

    Raises:
        BadRow: the text is a list or an object, or of numbers a fraction or NaN.
    """
    text = text.strip(WHITE_SPACE)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if are_numbers and _is_nan(text):
        raise BadRow(describe_nan(name))
    if are_numbers and _DECIMAL.fullmatch(text):
        number = float(text)
        if not number.is_integer():
            raise BadRow(f"field '{name}' must be text or a whole number, found a fraction")
        return str(int(number))
    if text[0] in "[({" and text[0] + text[-1] in _EMPTY and not text[1:-1].strip():
        raise BadRow(f"field '{name}' is empty")
    if text[0] in "[({" and (kind := _describe_container(text)) is not None:
        raise BadRow(
            refuse_several(name) if kind == _LIST else f"field '{name}' must be text or a whole number, found {kind}"
        )
    return text


def describe_nan(name: str) -> str:
    """Return why a row has no label, where a table writes NaN for none."""
    return f"field '{name}' is NaN"


def _is_nan(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() == "nan"


def refuse_several(name: str) -> str:
    """Return why a row with a list of labels is no row of one label."""
    return f"field '{name}' must hold one label, found a list; make a column of yes and no per label"


def refuse_wrong_labels(n_per_reason: Mapping[str, int], name: str, where: str) -> None:
    """Refuse rows with something in place of a label, where rows may have none.

    Null, NaN, and empty texts, lists and objects are none, and no reason to refuse.

    Args:
        n_per_reason: of the rows that cannot be used.
        name: of the column of labels.
        where: the file.

    Raises:
        InputError: there are some.
    """
    for reason, n in n_per_reason.items():
        if reason.startswith(f"field '{name}' must"):
            n_rows = format_count(n, "other row")
            raise InputError(
                f"{where}: rows with one label or none are required, found {n_rows} ({reason}); correct these labels, "
                "or leave them empty"
            )


def _describe_container(text: str) -> str | None:
    """Return "a list" or "an object" for a text that writes one in JSON, Python or numpy."""
    if _ARRAY.fullmatch(text):
        return _LIST
    for parse in (orjson.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            value = parse(text)
            if isinstance(value, list | tuple | set):
                return _LIST
            if isinstance(value, dict):
                return describe_type(value)
    return None


def find_joined_labels(counts: Iterable[str]) -> list[str]:
    """Return the labels that are lists of others, sorted: each part is in another label, too.

    "a, b" beside "a" and "b, c" is one; "New York, NY" beside "Buffalo, NY" is none. Fewer than two
    such labels are none.
    """
    parts = {label: {part.strip() for part in _SEPARATORS.split(label)} for label in counts}
    n_labels = Counter(part for own in parts.values() for part in own)
    joined = [
        label for label, own in parts.items() if len(own) > 1 and all(part and n_labels[part] > 1 for part in own)
    ]
    return sorted(joined) if len(joined) > 1 else []


def are_number_labels(labels: Iterable[Any]) -> bool:
    """Tell whether labels, of which some are texts, are numbers, but for a few names."""
    values = [label for label in labels if not _is_nan(label)]
    texts = [value for value in values if isinstance(value, str)]
    numbers = sum(_NUMBER.fullmatch(text) is not None for text in texts)
    numbers += sum(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return bool(texts) and numbers >= _MOSTLY * len(values)


def fold_label(label: str) -> str:
    """Return a label without case, kind of spaces and hyphens, and form of letters."""
    folded = _JOINTS.sub(" ", unicodedata.normalize("NFKC", label).casefold())
    if _DECIMAL.fullmatch(folded) and float(folded).is_integer():
        folded = str(int(float(folded)))
    return folded


def find_similar_labels(counts: Mapping[str, int]) -> list[list[str]]:
    """Return the groups of labels that differ only in case, spaces, hyphens or form of letters."""
    groups: dict[str, list[str]] = {}
    for label in counts:
        groups.setdefault(fold_label(label), []).append(label)
    return [sorted(group, key=lambda label: (-counts[label], label)) for group in groups.values() if len(group) > 1]
