"""Checks of settings, worded the same for every selector and rule."""

from __future__ import annotations

from collections.abc import Sequence

from thresher.errors import SettingsError, did_you_mean


def check_one_of(name: str, setting: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not one of the allowed words.

    Raises:
        SettingsError: `value` is not in `allowed`.
    """
    if value not in allowed:
        words = ", ".join(f"'{word}'" for word in allowed)
        hint = did_you_mean(str(value), allowed)
        raise SettingsError(f"{name}: {setting} must be one of {words}, got {value!r}{hint}")


def check_whole(name: str, setting: str, value: object, low: int) -> None:
    """Refuse anything but a whole number of at least `low`.

    Raises:
        SettingsError: `value` is not an int or is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise SettingsError(f"{name}: {setting} must be a whole number of at least {low}, got {value!r}")


def check_named(name: str, setting: str, value: str | None, what: str) -> None:
    """Refuse an empty name; None is "not set".

    Raises:
        SettingsError: `value` is "".
    """
    if value is not None and not value:
        raise SettingsError(f"{name}: {setting} must name {what}, got {value!r}")


def check_number(name: str, setting: str, value: object, low: float, high: float) -> None:
    """Refuse anything but a number in `low`..`high`, both included.

    Raises:
        SettingsError: `value` is not a number or lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SettingsError(f"{name}: {setting} must be a number in {low:g}..{high:g}, got {value!r}")
