"""Errors a user can act on: one sentence with where, what was required, what was found, what to do.

    ThresherError
    ├── InputError         the data or an argument is not what is required   (ValueError)
    ├── SettingsError      a setting has an unknown name or an illegal value  (ValueError)
    ├── NotFoundError      a name was looked up and does not exist            (LookupError)
    ├── MissingExtraError  an optional package is needed                      (ImportError)
    ├── ManifestError      a manifest cannot be read or does not match        (ValueError)
    └── OutputError        the output folder cannot be written                (OSError)

The command line prints the sentence and exits with 2; any other exception is an internal error.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class ThresherError(Exception):
    """Base of all errors that thresher raises on purpose."""


class InputError(ThresherError, ValueError):
    """The data or an argument is not what the call requires."""


class SettingsError(ThresherError, ValueError):
    """A setting has an unknown name or an illegal value."""


class NotFoundError(ThresherError, LookupError):
    """A name (selector, column, encoder, model) does not exist."""

    def __str__(self) -> str:
        """Return the sentence itself: LookupError's own form would quote it."""
        return str(self.args[0]) if self.args else ""


class MissingExtraError(ThresherError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, needed_by: str, extra: str) -> None:
        """Name the package, who needs it, and the command that installs it."""
        super().__init__(f"'{package}' is not installed; {needed_by} needs it: pip install 'thresher[{extra}]'")
        self.package = package
        self.extra = extra


class ManifestError(ThresherError, ValueError):
    """A manifest cannot be read, has an unknown version, or does not match its folder."""


class OutputError(ThresherError, OSError):
    """The output folder cannot be written: it is taken, locked, or the disk is full."""

    def __str__(self) -> str:
        """Return the sentence itself, without OSError's errno form."""
        return str(self.args[0]) if self.args else ""


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the nearest known name; empty where none is near enough."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else ""


def first_three(values: Sequence[object]) -> str:
    """Return up to three of the values as text, with the count of the rest."""
    shown = ", ".join(str(value) for value in values[:3])
    return shown if len(values) <= 3 else f"{shown} and {len(values) - 3} more"
