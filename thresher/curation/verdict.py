"""Verdict: what a rule says of each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from thresher.numeric.arrays import Bool

POOL = "pool"
Notes = Mapping[str, int | float | str]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a rule says of n rows: each is kept, or dropped for a reason.

    Attributes:
        reason: (n,) string: a short name such as "too-long" for each dropped row, null for a kept
            one.
        explanation: (n,) string: the reason in a sentence, for dropped rows; for kept rows a
            finding that the user should see, or null.
        duplicate_of: (n,) string or None: row id of the row that a dropped row repeats, null where
            there is none.
        duplicate_in: (n,) string or None: where that row is: "pool", "existing" or "eval".
        similarity: (n,) float32 or None: with that row; null where there is none.
        cluster: (n,) string or None: row id of the row that represents the group of duplicates that
            a row is in, its own for the one that is kept; null for a row that is alone.
        is_masked: (n,) bool or None: rows whose texts the rule's `mask` changes.
        notes: facts for the manifest, such as the number of pairs that were compared; a text is
            shown to the user.
    """

    reason: pl.Series
    explanation: pl.Series
    duplicate_of: pl.Series | None = None
    duplicate_in: pl.Series | None = None
    similarity: pl.Series | None = None
    cluster: pl.Series | None = None
    is_masked: Bool | None = None
    notes: Notes = field(default_factory=dict)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, *, is_masked: Bool | None = None, notes: Notes | None = None) -> Verdict:
        """Return the verdict whose parts are the columns of a frame, named like the attributes."""
        parts: dict[str, Any] = frame.to_dict()
        return cls(**parts, is_masked=is_masked, notes=dict(notes or {}))

    def __post_init__(self) -> None:
        """Refuse parts of unequal length, drops unexplained, and repeats without their place.

        Raises:
            ValueError: the rule that made the verdict has a bug.
        """
        n = len(self.reason)
        parts = {
            "explanation": self.explanation,
            "duplicate_of": self.duplicate_of,
            "duplicate_in": self.duplicate_in,
            "similarity": self.similarity,
            "cluster": self.cluster,
            "is_masked": self.is_masked,
        }
        for name, part in parts.items():
            if part is not None and len(part) != n:
                raise ValueError(f"verdict: {name} must have one entry per row ({n}), got {len(part)}")
        if (self.reason.is_not_null() & self.explanation.is_null()).any():
            raise ValueError("verdict: every dropped row must have an explanation")
        if (self.duplicate_of is None) != (self.duplicate_in is None):
            raise ValueError("verdict: duplicate_of and duplicate_in go together")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.reason)

    @property
    def is_dropped(self) -> Bool:
        """Which rows are dropped, (n,)."""
        dropped: Bool = self.reason.is_not_null().to_numpy()
        return dropped


def drop_where(is_dropped: Bool, reason: str, explanation: pl.Series | str, *, notes: Notes | None = None) -> Verdict:
    """Return the verdict of a rule with one reason.

    Args:
        is_dropped: (n,).
        reason: its short name.
        explanation: a sentence for all dropped rows, or (n,) one for each; ignored for kept rows.
        notes: facts for the manifest.
    """
    frame = pl.DataFrame({"is_dropped": pl.Series(is_dropped, dtype=pl.Boolean)}).select(
        reason=pl.when("is_dropped").then(pl.lit(reason, pl.String)),
        explanation=pl.when("is_dropped").then(pl.lit(explanation)),
    )
    return Verdict.from_frame(frame, notes=notes)
