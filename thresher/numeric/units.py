"""Amounts for people to read: bytes."""

from __future__ import annotations


def format_bytes(n_bytes: float) -> str:
    """Return a number of bytes as "12.3 MB"."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
