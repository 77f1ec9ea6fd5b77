"""Checks of words: the same text, the same choice, the same JSON, the same match of a pattern."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from thresher.checks.contract import Check
from thresher.errors import SettingsError
from thresher.validation import option

_NAMED = re.compile(r"(?i:\b(?:answer|option|choice)\b(?:\s+is)?)\s*:?\s*\**\(?([A-Z])\b\)?")
_BRACKETS = re.compile(r"\(([A-Z])\)")
_FIRST = re.compile(r"\W*([A-Z])(?:[).:]|\W*$)")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


class Exact(Check):
    """The same words, white space apart."""

    name: ClassVar[str] = "exact"

    def read(self, text: str) -> str | None:
        """Return the text with single spaces; None for an empty one."""
        return " ".join(text.split()) or None


class Choice(Check):
    """The same option of a list: "B", "(B)", "B. Rome", "the answer is B"."""

    name: ClassVar[str] = "choice"

    def read(self, text: str) -> str | None:
        """Return the letter that a text names last, or begins with; None for none."""
        for pattern in (_NAMED, _BRACKETS):
            if found := pattern.findall(text):
                return str(found[-1])
        first = _FIRST.match(text)
        return first.group(1) if first else None


class Json(Check):
    """The same JSON value: the same keys with the same values, in any order of the keys."""

    name: ClassVar[str] = "json"

    def read(self, text: str) -> str | None:
        """Return the value in one form, 1 and 1.0 alike; None for a text without one."""
        fenced = _FENCE.search(text)
        try:
            value, _ = json.JSONDecoder().raw_decode(_skip_words(fenced.group(1) if fenced else text))
            return json.dumps(_normalize(value), sort_keys=True)
        except (ValueError, RecursionError):  # no JSON, or nested thousands deep
            return None


def _skip_words(text: str) -> str:
    """Return a text from its first object or list on; itself where there is none."""
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    return text[min(starts) :] if starts else text.strip()


def _normalize(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.strip(): _normalize(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_normalize(each) for each in value]
    if isinstance(value, str):
        return value.strip()
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Regex(Check):
    """What the last match of a pattern holds is the same: its first group, or all of it."""

    name: ClassVar[str] = "regex"

    pattern: str = option(help="Regular expression of Python; of several matches the last one counts.", ge=1)

    def __post_init__(self) -> None:
        """Check that the pattern is one.

        Raises:
            SettingsError: it is not.
        """
        super().__post_init__()
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise SettingsError(
                f"check 'regex': its pattern must be a regular expression, got '{self.pattern}' ({error}); for example "
                f"regex:answer is (.*)"
            ) from None

    def read(self, text: str) -> str | None:
        """Return what the last match holds, with single spaces; None without a match."""
        matches = list(re.finditer(self.pattern, text))
        if not matches:
            return None
        held = matches[-1].group(1 if matches[-1].re.groups else 0)
        return None if held is None else " ".join(held.split())
