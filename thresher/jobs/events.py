"""Events: what a run reports while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from thresher.jobs.sources.addresses import Addresses

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


class EventLog:
    """Sends events to a listener, with every secret struck out.

    Attributes:
        addresses: resolves addresses, and knows their secrets.
        notes: about the rows and the models, for the report of the run.
    """

    def __init__(self, on_event: OnEvent | None) -> None:
        self.addresses = Addresses()
        self.notes: list[str] = []
        self._on_event = on_event

    def send(self, name: str, message: str, level: Level = "info", fields: Mapping[str, Any] | None = None) -> None:
        """Send an event."""
        if self._on_event is not None:
            message = self.addresses.redact(message)
            self._on_event(Event(name=name, message=message, level=level, fields=fields or {}))

    def warn(self, name: str, message: str) -> None:
        """Send a warning."""
        self.send(name, message, "warning")

    def note(self, name: str, message: str, level: Level = "warning") -> None:
        """Send what the report of the run repeats."""
        self.notes.append(self.addresses.redact(message))
        self.send(name, message, level)
