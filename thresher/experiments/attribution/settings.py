"""What `why` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypedDict

from thresher.models.settings import declare_device
from thresher.validation import check_settings, option


@dataclass(frozen=True, kw_only=True)
class WhySettings:
    """Options of `why`.

    Raises:
        SettingsError: a field has an illegal value.
    """

    command: ClassVar[str] = "why"

    answer: str | None = option(None, "Answer to explain; default: what the adapter answers.")
    suspects: int = option(10, "Number of top-scoring rows that the test leaves out, at most a third of all.", ge=1)
    proofs: int = option(
        5,
        "Training runs without the suspects; the same number each without random rows and without other "
        "random rows. At least 3, or 0 to skip the test.",
    )
    dim: int = option(2048, "Dimensions of a gradient sketch.", ge=16)
    device: str | None = declare_device()
    seed: int = option(0, "Random seed of the test; its runs use seed, seed + 1, ...", ge=0)
    out: str | Path | None = option(None, "Folder for the result; a killed run resumes from it.")
    force: bool = option(False, "Replace an earlier result.")

    def __post_init__(self) -> None:
        """Check every field."""
        problems = (
            [] if self.proofs == 0 or self.proofs >= 3 else [f"proofs must be 0 or at least 3, got {self.proofs}"]
        )
        check_settings(self, "why", problems)


class WhyOptions(TypedDict, total=False):
    """`WhySettings`, for type checkers."""

    answer: str | None
    suspects: int
    proofs: int
    dim: int
    device: str | None
    seed: int
    out: str | Path | None
    force: bool
