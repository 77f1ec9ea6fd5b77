"""The contract of checks, and how a check is found by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass

from thresher.errors import SettingsError
from thresher.plugins import Registry
from thresher.validation import check_settings


class Check(ABC):
    """Compares what a model wrote with a reference; a frozen dataclass if it has settings.

    It reads texts and runs nothing of them. What is in a text reaches no shell, file or network.
    """

    def __post_init__(self) -> None:
        """Check the settings against their types and bounds.

        Raises:
            SettingsError: a setting has an illegal value.
        """
        if is_dataclass(type(self)):
            check_settings(self, f"check '{self.name}'")

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the entry point; a class attribute will do."""

    @abstractmethod
    def read(self, text: str) -> str | None:
        """Return what a text says, in one form for all texts that say the same; None for nothing.

        It is asked of references and of answers.
        """

    def is_right(self, answer: str, reference: str) -> bool:
        """Tell whether an answer says what the reference says; one that says nothing is wrong."""
        said = self.read(answer)
        return said is not None and said == self.read(reference)


CHECKS = Registry("thresher.checks", "check", Check, also=("regex:PATTERN",))  # type: ignore[type-abstract]
available = CHECKS.available


def create_check(text: str) -> Check:
    """Build a check from its name, with its one setting behind a colon where it has one.

    Args:
        text: "number", "regex:answer is (.*)", ...

    Raises:
        NotFoundError: no check has this name.
        SettingsError: it takes no setting, needs one, or cannot use this one.
    """
    name, colon, setting = text.partition(":")
    cls = CHECKS.load(name)
    names: list[str] = [field.name for field in fields(cls)] if is_dataclass(cls) else []
    if colon and not names:
        raise SettingsError(f"check '{name}': takes no setting, got '{setting}'; give '{name}' alone")
    return CHECKS.create(name, {names[0]: setting} if colon else None) if is_dataclass(cls) else cls()
