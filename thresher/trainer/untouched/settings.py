"""Whether and how the untouched model is measured beside the trained one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from thresher.errors import SettingsError
from thresher.validation import check_settings, option

EMBEDDED = tuple(Path(__file__).parent / "general" / name for name in ("texts.jsonl", "questions.jsonl"))
PANEL = "The untouched model"


FORGET = 0.02  # bits per byte


@dataclass(frozen=True, kw_only=True)
class UntouchedSettings:
    """Options of the untouched model: the base before any training, on the same held-out rows.

    Raises:
        SettingsError: a field has an illegal value.
    """

    base: Literal["auto", "none"] = option(
        "auto",
        "auto: also measure the untouched model on the held-out rows (labels: the majority class, and a probe on "
        "its vectors); none: skip it.",
        panel=PANEL,
    )
    shots: tuple[int, ...] = option(
        (0,),
        "Training rows, nearest to each question, in the prompt of the untouched model: 0 is zero-shot; 0,4,16 "
        "measures three prompts. k shots cost k + 1 times the tokens. Instruction rows only.",
        ge=0,
        panel=PANEL,
    )

    general: str | Path = option(
        "auto",
        "Rows from outside the task, to measure what the model forgets: a file of texts or of questions with "
        "answers; auto: 300 included ones (language models); none.",
        panel=PANEL,
    )
    forget: float = option(FORGET, "Acceptable forgetting on the general rows, in bits per byte.", ge=0, panel=PANEL)

    scale: Literal["trained", "front", "auto"] = option(
        "trained",
        "Strength of the saved adapter. trained: as trained; front: the same, and report what 0, 1/4, 1/2 and 3/4 "
        "of that strength would gain and forget; auto: the largest gain within --forget.",
        panel=PANEL,
    )

    def __post_init__(self) -> None:
        """Check every field."""
        check_settings(self, "train")

    @staticmethod
    def take(settings: UntouchedSettings) -> UntouchedSettings:
        """Return the fields of this class alone, of settings that have others, too."""
        return UntouchedSettings(**{field.name: getattr(settings, field.name) for field in fields(UntouchedSettings)})

    def list_changed(self, **defaults: Any) -> dict[str, Any]:
        """Return the fields that are not at their default, as JSON values.

        Args:
            defaults: by field, where a command has another default.
        """
        known = {field.name: defaults.get(field.name, field.default) for field in fields(UntouchedSettings)}
        changed = {name: getattr(self, name) for name, value in known.items() if getattr(self, name) != value}
        return {
            name: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            for name, value in changed.items()
        }

    @property
    def prompts(self) -> tuple[int, ...]:
        """The numbers of rows in the prompt to measure, rising; none with base "none"."""
        return () if self.base == "none" else tuple(sorted(set(self.shots)))

    @property
    def general_files(self) -> tuple[Any, ...]:
        """What holds the rows that are not of the task; nothing with general "none"."""
        if str(self.general) == "none":
            return ()
        return EMBEDDED if str(self.general) == "auto" else (self.general,)

    def check_rows(self, kind: str, *, has_held_out: bool) -> None:
        """Refuse what has no effect: rows in the prompt without a prompt, limits without a measure.

        Args:
            kind: of the rows that are trained on.
            has_held_out: whether there are rows to measure on.

        Raises:
            SettingsError: the rows are no instructions, or none are held out.
        """
        if any(self.prompts) and kind != "sft":
            raise SettingsError(
                f"shots: training rows are put into prompts, which rows of kind '{kind}' do not have; leave them out"
            )
        if kind == "classification" and str(self.general) not in ("auto", "none"):
            raise SettingsError("general: a classifier writes no text, so it can forget none; leave general out")
        if self.forget != FORGET and (kind == "classification" or not self.general_files):
            why = "a classifier writes no text, so it can forget none" if kind == "classification" else "none are read"
            raise SettingsError(
                f"forget: is a limit of what is lost on general rows, and {why}; leave it out"
                f"{'' if kind == 'classification' else ', or give --general'}"
            )
        if self.scale != "trained" and kind == "classification":
            raise SettingsError(
                f"scale: '{self.scale}' weighs what a language model gains against what it forgets; the rows have "
                f"labels, so leave scale out"
            )
        if self.scale != "trained" and (not has_held_out or str(self.general) == "none"):
            raise SettingsError(
                f"scale: '{self.scale}' weighs the gain on held-out rows against the loss on general rows of a "
                f"language model; give --eval and --general, or leave scale out"
            )
        if any(self.prompts) and not has_held_out:
            raise SettingsError("shots: prompts are measured on held-out rows, found none; give --eval")


class UntouchedOptions(TypedDict, total=False):
    """`UntouchedSettings`, for type checkers."""

    base: Literal["auto", "none"]
    shots: int | Sequence[int]
    general: str | Path
    forget: float
    scale: Literal["trained", "front", "auto"]
