"""Amounts as people read and write them: bytes, times, counts."""

from __future__ import annotations

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def format_bytes(n_bytes: float) -> str:
    """Return a number of bytes as "12.3 MB"."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def format_count(n: int, noun: str) -> str:
    """Return "1 row" or "1,200 rows" for a noun whose plural takes an s."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def format_points(share: float) -> str:
    """Return "1 point" or "0.5 points" for a share of rows."""
    points = f"{100 * share:g}"
    return f"{points} {'point' if points == '1' else 'points'}"


def format_amount(n: int, unit: str) -> str:
    """Return "1 row" or "1,200 rows" for a unit in the plural, as "rows" or "source groups"."""
    return format_count(n, unit.removesuffix("s"))


def parse_seconds(time: float | str) -> float:
    """Return 1800.0 for "30m", and 0 for what is no time; a number is seconds."""
    text = str(time)
    number, unit = (text[:-1], text[-1]) if text[-1:] in SECONDS else (text, "s")
    try:
        return float(number) * SECONDS[unit]
    except ValueError:
        return 0.0


def format_time_left(seconds: float) -> str:
    """Return "about 12 s left", or "less than a second left"."""
    return "less than a second left" if seconds < 1 else f"about {format_duration(seconds)} left"


def format_duration(seconds: float) -> str:
    """Return a time as "0.4 s", "12 s", "34 min" or "5.6 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
