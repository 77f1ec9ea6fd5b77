"""Events: what a run tells while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run.

    Attributes:
        name: a short name such as "read" or "published".
        message: a sentence.
        level: how much it matters.
        fields: numbers and names behind the sentence, in JSON values.
    """

    name: str
    message: str
    level: Level = "info"
    fields: Mapping[str, Any] = field(default_factory=dict)


OnEvent = Callable[[Event], None]
