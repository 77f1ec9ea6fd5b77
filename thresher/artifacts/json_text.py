"""JSON text of whole numbers of any size: orjson has 64 bits, and makes floats of longer ones."""

from __future__ import annotations

import re
import uuid
from typing import Any

import orjson

_LONG_NUMBER, _LONG_TEXT = re.compile(rb"[0-9]{19}"), re.compile("[0-9]{19}")
# a text, or a number
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')
_LONG = re.compile("-?[0-9]{19,}")
_LARGE, _MIN, _MAX = 2.0**63, -(1 << 63), (1 << 64) - 1
_LEVELS = 100  # that orjson writes at once; it can 254


def encode_json(value: Any, *, option: int = 0) -> bytes:
    """Return a value as JSON text; what JSON has no form for is written as its `str`.

    Args:
        value: dicts, lists and plain values, with whole numbers of any size, nested to any depth.
            NaN and Infinity are written as null, and keys that are no texts as texts.
        option: flags of orjson.

    Raises:
        orjson.JSONEncodeError: a text has half of a surrogate pair, or a key is of another type.
        ValueError: a list or dict holds itself.
    """
    try:
        return orjson.dumps(value, default=str, option=option)
    except orjson.JSONEncodeError:
        return _encode_parts(value, option | orjson.OPT_NON_STR_KEYS)


def _encode_parts(value: Any, option: int) -> bytes:
    """Return a value as JSON text, of parts of `_LEVELS` levels, the innermost first."""
    whole: list[Any] = [None]
    parts = [_Part(value, whole, 0, 0, frozenset())]
    for part in parts:  # which grows
        part.holder[part.key] = part.copy(parts)
    inner = option & ~orjson.OPT_APPEND_NEWLINE
    for part in reversed(parts[1:]):
        text = orjson.dumps(part.holder[part.key], default=str, option=inner)
        part.holder[part.key] = orjson.Fragment(text.replace(b"\n", b"\n" + b"  " * _LEVELS))
    return orjson.dumps(whole[0], default=str, option=option)


class _Part:
    """A part of a value, which stands at a key of the copy that holds it."""

    def __init__(self, value: Any, holder: Any, key: Any, level: int, around: frozenset[int]) -> None:
        self._value, self._around = value, around
        self.holder, self.key, self.level = holder, key, level

    def copy(self, parts: list[_Part]) -> Any:
        """Return a copy with long numbers as orjson writes them; add deeper parts to a list."""
        return self._copy(self._value, self._around, self.level, parts)

    def _copy(self, value: Any, around: frozenset[int], level: int, parts: list[_Part]) -> Any:
        if isinstance(value, int):
            return value if _MIN <= value <= _MAX else orjson.Fragment(str(value))
        if not isinstance(value, dict | list | tuple):
            return value
        if id(value) in around:
            raise ValueError("a list or dict holds itself")
        around |= {id(value)}
        items = value.items() if isinstance(value, dict) else enumerate(value)
        copied: Any = {} if isinstance(value, dict) else [None] * len(value)
        for key, each in items:
            place = str(key) if isinstance(key, int) and not _MIN <= key <= _MAX else key
            if level + 1 - self.level == _LEVELS and isinstance(each, dict | list | tuple):
                copied[place] = None  # for now
                parts.append(_Part(each, copied, place, level + 1, around))
            else:
                copied[place] = self._copy(each, around, level + 1, parts)
        return copied


def parse_json(text: str | bytes) -> Any:
    """Parse JSON text; whole numbers are exact whatever their size.

    Raises:
        orjson.JSONDecodeError: it is not JSON, nested deeper than 1,024 levels, or has a number
            beyond the range of floats, of 309 digits or more.
    """
    value = orjson.loads(text)
    is_suspect = _LONG_TEXT.search(text) if isinstance(text, str) else _LONG_NUMBER.search(text)
    return _parse_long(text) if is_suspect and _has_rounded(value) else value


def _has_rounded(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, float) and abs(one) >= _LARGE:
            return True
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one
    return False


def _parse_long(text: str | bytes) -> Any:
    """Parse JSON text with long whole numbers, which orjson reads as marked texts."""
    mark = uuid.uuid4().hex

    def mark_long(token: re.Match[str]) -> str:
        return f'"{mark}{token[0]}"' if _LONG.fullmatch(token[0]) else token[0]

    plain = text if isinstance(text, str) else text.decode()
    whole = [orjson.loads(_TOKEN.sub(mark_long, plain))]
    waiting: list[Any] = [whole]
    while waiting:
        one = waiting.pop()
        for key, each in list(one.items() if isinstance(one, dict) else enumerate(one)):
            if isinstance(each, dict | list):
                waiting.append(each)
            elif isinstance(each, str) and each.startswith(mark):
                one[key] = int(each.removeprefix(mark))
    return whole[0]
