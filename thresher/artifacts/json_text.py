"""JSON text of whole numbers of any size: orjson has 64 bits, and makes floats of longer ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

_LONG_NUMBER, _LONG_TEXT = re.compile(rb"[0-9]{19}"), re.compile("[0-9]{19}")
_LARGE, _MIN, _MAX = 2.0**63, -(1 << 63), (1 << 64) - 1


def encode_json(value: Any, *, option: int = 0) -> bytes:
    """Return a value as JSON text; what JSON has no form for is written as its `str`.

    Args:
        value: dicts, lists and plain values, with whole numbers of any size, nested to any depth.
        option: flags of orjson.
    """
    try:
        return orjson.dumps(value, default=str, option=option)
    except orjson.JSONEncodeError:
        pass
    try:
        return orjson.dumps(_mark_long(value), default=str, option=option)
    except (orjson.JSONEncodeError, RecursionError):  # nested too deep for orjson
        is_sorted = bool(option & orjson.OPT_SORT_KEYS)
        end = b"\n" if option & orjson.OPT_APPEND_NEWLINE else b""
        text = json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"), sort_keys=is_sorted)
        return text.encode() + end


def parse_json(text: str | bytes) -> Any:
    """Parse JSON text; whole numbers are exact whatever their size.

    Raises:
        orjson.JSONDecodeError: it is not JSON.
    """
    value = orjson.loads(text)
    is_suspect = _LONG_TEXT.search(text) if isinstance(text, str) else _LONG_NUMBER.search(text)
    if not is_suspect:
        return value
    try:
        return json.loads(text) if _has_rounded(value) else value
    except (ValueError, RecursionError):  # too long a number, or nested too deep, for json
        return value


def _has_rounded(value: Any) -> bool:
    if isinstance(value, float):
        return abs(value) >= _LARGE
    if isinstance(value, dict):
        return any(map(_has_rounded, value.values()))
    return isinstance(value, list) and any(map(_has_rounded, value))


def _mark_long(value: Any) -> Any:
    """Return a value whose long numbers are texts that orjson writes as they are."""
    if isinstance(value, int) and not _MIN <= value <= _MAX:
        return orjson.Fragment(str(value))
    if isinstance(value, Mapping):
        return {key: _mark_long(each) for key, each in value.items()}
    return [_mark_long(each) for each in value] if isinstance(value, list | tuple) else value
