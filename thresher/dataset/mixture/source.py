"""One source of several: what it is, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from thresher.artifacts.remote.address import is_address, parse_address
from thresher.dataset.settings import SourceSettings
from thresher.errors import SettingsError


@dataclass(frozen=True)
class Source(SourceSettings):
    """Rows from one source, and how to read them if that differs from the other sources.

        th.load([
            th.Source("a.jsonl", columns={"prompt": "question", "response": "answer"}),
            th.Source("owner/name", split="train", schema="messages"),
        ])

    Attributes:
        rows: anything that `load` takes.
        name: for messages; default: the path, or the kind of object.
    """

    where = "source"

    rows: Any
    name: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: one has an illegal value, or schema and columns are both given.
        """
        super().__post_init__()
        if self.schema is not None and self.columns is not None:
            raise SettingsError(f"{self.label}: schema and columns exclude each other, found both; give one of them")

    @property
    def label(self) -> str:
        """What messages and manifests call it."""
        if self.name is not None:
            return self.name
        if isinstance(self.rows, str | Path):
            rows = str(parse_address(self.rows) if is_address(self.rows) else self.rows)
            parts = [rows, self.config, self.split] if self.config else [rows, self.split]
            return ":".join(part for part in parts if part)
        is_paths = isinstance(self.rows, Sequence) and all(isinstance(path, str | Path) for path in self.rows)
        return f"{self.rows[0]}, ..." if is_paths and self.rows else f"<{type(self.rows).__name__}>"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are given."""
        values = {each.name: getattr(self, each.name) for each in fields(SourceSettings)}
        return {name: value for name, value in values.items() if value is not None}

    def add(self, settings: Mapping[str, Any]) -> Source:
        """Return the source with more settings.

        Raises:
            SettingsError: one of them is given already.
        """
        twice = sorted(settings.keys() & self.settings.keys())
        if twice:
            raise SettingsError(f"{self.label}: {twice[0]} is given twice; give it once")
        return replace(self, **settings)
