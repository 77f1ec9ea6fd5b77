"""What a selection keeps: each option of `select` is described here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Required

from thresher.dataset.values.given_settings import GivenOptions
from thresher.errors import SettingsError
from thresher.models.settings import ModelOptions
from thresher.validation import Settings, option, parse_pairs

if TYPE_CHECKING:
    from thresher.subset.budget import Budget
    from thresher.subset.quota import Quota

Order = Literal["file", "rank"]
Pilot = Literal["none", "train"]


@dataclass(frozen=True, kw_only=True)
class PilotSettings:
    """Whether models are trained to decide on a method; `select` and `advise` share it."""

    pilot: Pilot = option(
        "none",
        "train: first compare methods by short training runs of the model; the best one is used if it "
        "beats random rows.",
    )


@dataclass(frozen=True, kw_only=True)
class SelectSettings(PilotSettings, Settings):
    """How many rows are kept, and which rows stand beside the pool."""

    where = "select"

    budget: Any = option(
        help="How much to keep: 500 or 10k rows, 30%, 200ktok (tokens), score>0.8, or saturation:FOLDER of a curve."
    )
    settings: Mapping[str, Any] | None = option(
        None, "Setting of the method: NAME=VALUE.", flag="--set", is_repeatable=True, parse=parse_pairs
    )
    existing: Any = option(None, "Rows you already have; coverage methods avoid what these cover.")
    target: Any = option(None, "Rows of the task you train for, for target-aware methods.")
    by: str | None = option(
        None, "Column that the method uses (its setting `by`), such as your scores for --method top.", ge=1
    )
    quota: Any = option(
        None, "Proportions or limits per value of a column: label=sqrt, source:web=70%,forum=30%, label:*<=100."
    )
    order: Order = option("file", "Order of the kept rows: as in the file, or best first.")
    seed: int = option(0, "Random seed.", ge=0)
    strict: bool = option(False, "Refuse to keep fewer rows than were asked for, as --strict does.", flag="")

    @property
    def method_settings(self) -> Mapping[str, Any] | None:
        """The method's own settings, `by` among them.

        Raises:
            SettingsError: `by` is given twice.
        """
        own = self.settings or {}
        if self.by is None:
            return self.settings
        if "by" in own:
            raise SettingsError(f"by: is given twice, as --by {self.by} and --set by={own['by']}; leave one out")
        return {**own, "by": self.by}


class SelectOptions(ModelOptions, GivenOptions, total=False):
    """Three settings classes as keyword arguments, for type checkers."""

    budget: Required[int | float | str | Budget]
    settings: Mapping[str, Any] | None
    existing: Any
    target: Any
    by: str | None
    quota: str | Quota | None
    order: Order
    seed: int
    strict: bool
    pilot: Pilot
