"""How often two annotators agree, with its interval, and beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of two annotators on the rows that both labeled.

    Attributes:
        n: rows.
        share: on which they agree.
        low: lower end of its 95 % interval (Wilson 1927, doi:10.1080/01621459.1927.10502953).
        high: upper end.
        kappa: agreement beyond chance (Cohen 1960); None where chance alone would agree on all.
    """

    n: int
    share: float
    low: float
    high: float
    kappa: float | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the share with its interval."""
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return f"{100 * self.share:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}] of {self.n:,} rows{kappa}"


def measure_agreement(pairs: Sequence[tuple[str | None, str | None]]) -> Agreement:
    """Return the agreement of two annotators.

    Args:
        pairs: label of each; None, no label, agrees with nothing.
    """
    n = len(pairs)
    n_same = sum(a is not None and a == b for a, b in pairs)
    share = n_same / n
    center, reach = compute_wilson(n_same, n)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(first[name] * second[name] for name in first if name is not None) / n**2
    kappa = None if chance >= 1 else (share - chance) / (1 - chance)
    return Agreement(n=n, share=share, low=max(0.0, center - reach), high=min(1.0, center + reach), kappa=kappa)


def compute_wilson(n_right: int, n: int) -> tuple[float, float]:
    """Return center and half width of Wilson's 95 % interval of a share."""
    p, z2 = n_right / n, Z**2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    reach = Z / (1 + z2 / n) * (p * (1 - p) / n + z2 / (4 * n**2)) ** 0.5
    return center, reach
