"""What `soup` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypedDict

from thresher.models.settings import declare_device
from thresher.validation import check_settings, option


@dataclass(frozen=True, kw_only=True)
class SoupSettings:
    """Options of `soup`.

    Raises:
        SettingsError: a field has an illegal value.
    """

    command: ClassVar[str] = "soup"

    ways: tuple[Literal["mean", "ties", "dare"], ...] = option(
        ("mean", "ties", "dare"),
        "How to merge the updates, each as a greedy soup. mean: average; ties: the largest entries, with the "
        "majority sign; dare: random entries, rescaled, then as ties.",
    )
    density: float = option(0.5, "Share of entries that ties and dare keep.", gt=0, le=1)
    seed: int = option(0, "Random seed of dare.", ge=0)
    device: str | None = declare_device()
    out: str | Path | None = option(None, "Folder for the result.")
    force: bool = option(False, "Replace an earlier result.")

    def __post_init__(self) -> None:
        """Check every field."""
        check_settings(self, "soup", [] if self.ways else ["ways must name at least one way, got none"])


class SoupOptions(TypedDict, total=False):
    """`SoupSettings`, for type checkers."""

    ways: tuple[Literal["mean", "ties", "dare"], ...]
    density: float
    seed: int
    device: str | None
    out: str | Path | None
    force: bool
