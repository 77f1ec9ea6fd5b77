"""Rows that cannot be used: the reason of each, and how they are collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from thresher.errors import InputError

PREVIEW_CHARACTERS = 200
NOT_UTF8 = "the row is not UTF-8"

REJECTED_SCHEMA = {"file": pl.String, "line": pl.UInt64, "reason": pl.String, "preview": pl.String}


class BadRow(ValueError):
    """A row cannot be used. The message is the reason, equal for equal faults, to be counted."""


class NoRowsError(InputError):
    """A file was read, and none of its rows can be used.

    Attributes:
        rejected: its rows, each with its reason, see `Dataset.rejected`.
    """

    def __init__(self, message: str, rejected: pl.DataFrame | None = None) -> None:
        """Keep the rows with the message."""
        super().__init__(message)
        self.rejected = pl.DataFrame(schema=REJECTED_SCHEMA) if rejected is None else rejected


def describe_type(value: Any) -> str:
    """Return what a value is, in words a user of JSON knows."""
    names = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    if value is None:
        return "null"
    return names.get(type(value), type(value).__name__)


@dataclass
class RejectedRows:
    """The bad rows of a read, in order of appearance: (file, line, reason, preview)."""

    rows: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, file: str, line: int, reason: str, preview: str) -> None:
        """Reject one row."""
        self.rows.append((file, line, reason, preview[:PREVIEW_CHARACTERS]))

    def __len__(self) -> int:
        """Return the number of bad rows."""
        return len(self.rows)

    def frame(self) -> pl.DataFrame:
        """Return the bad rows as a frame."""
        return pl.DataFrame(self.rows, schema=REJECTED_SCHEMA, orient="row")


def format_rejected(rejected: pl.DataFrame, n: int) -> str:
    """Return the first n bad rows as "file:line: reason"."""
    shown = rejected.head(n).select("file", "line", "reason").iter_rows()
    return "; ".join(f"{file}:{line}: {reason}" for file, line, reason in shown)


def format_reasons(by_reason: Mapping[str, int]) -> str:
    """Return the three most frequent reasons as "3 x no label; 1 x no text"."""
    return "; ".join(f"{count:,} x {reason}" for reason, count in list(by_reason.items())[:3])


def describe_rejected(n_read: int, by_reason: Mapping[str, int]) -> str:
    """Return how many of the rows that were read cannot be used, and the most frequent reasons."""
    more = f" and {len(by_reason) - 3} more reasons" if len(by_reason) > 3 else ""
    shown = f"{format_reasons(by_reason)}{more}"
    return f"{sum(by_reason.values()):,} of {n_read:,} rows cannot be used and are rejected: {shown}"


def count_values(reasons: pl.Series) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return dict(reasons.value_counts().sort("count", reasons.name, descending=[True, False]).iter_rows())
