"""What `soup` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from thresher.models.settings import declare_device
from thresher.trainer.engine.adapters.kinds import Way
from thresher.validation import check_settings, option

DENSITY = 0.5  # of ties and dare, as in their papers


@dataclass(frozen=True, kw_only=True)
class SoupSettings:
    """Options of `soup`.

    Raises:
        SettingsError: a field has an illegal value.
    """

    command: ClassVar[str] = "soup"

    ways: tuple[Way, ...] = option(
        ("mean", "ties", "dare"),
        "How to merge the updates, each as a greedy soup. mean: average; ties: the largest entries, with the "
        "majority sign; dare: random entries, rescaled, then as ties; regmean: each layer fits what the adapters "
        "compute on their own rows, needs --data.",
    )
    data: tuple[Any, ...] = option(
        (),
        "Rows that an adapter was trained on, once for each adapter, in the same order; for regmean, which reads the "
        "first 128 of each.",
        is_repeatable=True,
        parse=tuple,
    )
    density: float | None = option(None, f"Share of entries that ties and dare keep; default: {DENSITY}.", gt=0, le=1)
    seed: int = option(0, "Random seed of dare.", ge=0)
    device: str | None = declare_device()
    out: str | Path | None = option(None, "Folder for the result.")
    force: bool = option(False, "Replace an earlier result.")

    def __post_init__(self) -> None:
        """Check every field."""
        problems = [] if self.ways else ["ways must name at least one way, got none"]
        if ("regmean" in self.ways) != bool(self.data):
            got = "no rows; give --data once for each adapter" if not self.data else "rows without it; add it to --ways"
            problems.append(f"ways: regmean needs the rows that each adapter was trained on, got {got}")
        if self.density is not None and self.ways and not {"ties", "dare"} & set(self.ways):
            problems.append("density is for ties and dare, and the other ways keep all entries; leave it out")
        check_settings(self, "soup", problems)

    @property
    def kept_share(self) -> float:
        """Share of entries that ties and dare keep."""
        return DENSITY if self.density is None else self.density


class SoupOptions(TypedDict, total=False):
    """`SoupSettings`, for type checkers."""

    ways: tuple[Way, ...]
    data: tuple[Any, ...]
    density: float | None
    seed: int
    device: str | None
    out: str | Path | None
    force: bool
