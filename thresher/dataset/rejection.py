"""Rows that cannot be used: the reason of each, and how they are collected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl

PREVIEW_CHARACTERS = 200

REJECTED_SCHEMA = {"file": pl.String, "line": pl.UInt64, "reason": pl.String, "preview": pl.String}


class BadRow(ValueError):
    """A row cannot be used. The message is the reason: equal for equal faults, so that reasons can be counted."""


def type_name(value: Any) -> str:
    """Return what a value is, in words a user of JSON knows."""
    names = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    if value is None:
        return "null"
    return names.get(type(value), type(value).__name__)


@dataclass
class RejectedRows:
    """The bad rows of a read, in order of appearance."""

    file: list[str] = field(default_factory=list)
    line: list[int] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    preview: list[str] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str, preview: str) -> None:
        """Set one row aside."""
        self.file.append(file)
        self.line.append(line)
        self.reason.append(reason)
        self.preview.append(preview[:PREVIEW_CHARACTERS])

    def __len__(self) -> int:
        """Return the number of bad rows."""
        return len(self.file)

    def frame(self) -> pl.DataFrame:
        """Return the bad rows as a frame."""
        return pl.DataFrame(
            {"file": self.file, "line": self.line, "reason": self.reason, "preview": self.preview},
            schema=REJECTED_SCHEMA,
        )

    def first(self, n: int) -> str:
        """Return the first n as "file:line: reason"."""
        shown = zip(self.file[:n], self.line[:n], self.reason[:n], strict=True)
        return "; ".join(f"{file}:{line}: {reason}" for file, line, reason in shown)

    def most_common(self, n: int) -> str:
        """Return the n most frequent reasons with their counts."""
        return "; ".join(f"{count} x {reason}" for reason, count in Counter(self.reason).most_common(n))
