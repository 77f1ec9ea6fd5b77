"""Budgets and quotas: how many rows to keep, and from which group.

A budget is a number of rows (`500`), a share (`30%`, `0.3`), a number of tokens (`200ktok`), a threshold on the score
(`score>0.8`), or the saturation point of a learning curve (`saturation:FOLDER`, which becomes a number of rows). A
quota reorders a ranking so that every prefix of it keeps the wanted proportions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError

_SCALE = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_TOKENS = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)\s*tok(?:ens?)?", re.IGNORECASE)
_THRESHOLD = re.compile(r"score\s*>\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)", re.IGNORECASE)
_ROWS = re.compile(r"(\d[\d_,]*)\s*(?:rows?)?")
_MAX_AMOUNT = 10**15  # rows or tokens; whole numbers up to here are exact as floats
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_FORMS = "rows (500), a share (30% or 0.3), tokens (200ktok), a threshold (score>0.8) or a curve (saturation:FOLDER)"
_CURVE = "saturation:"
_FIRM = ("reached", "extrapolated")


@dataclass(frozen=True)
class Budget:
    """What to keep, in one of four units.

    Attributes:
        unit: "rows", "share" (of the rows, in 0..1), "tokens" or "threshold" (rows with a larger score are kept).
        amount: the number, in that unit.
    """

    unit: Literal["rows", "share", "tokens", "threshold"]
    amount: float

    def __str__(self) -> str:
        """Return the form a user would type."""
        return {
            "rows": f"{self.amount:.0f}",
            "share": f"{100 * self.amount:.15g}%",
            "tokens": f"{self.amount:.0f}tok",
            "threshold": f"score>{self.amount:.15g}",
        }[self.unit]

    def n_rows(self, n: int, lengths: NDArray[np.int64] | None = None) -> int:
        """Return how many rows of a ranking over `n` rows can be needed at the most.

        Args:
            n: rows in the pool.
            lengths: (n,) tokens of each row; needed for a budget in tokens.

        Raises:
            InputError: the budget is larger than the pool.
        """
        if self.unit == "threshold":
            return n
        if self.unit == "share":
            return max(1, int(n * self.amount + 0.5))
        if self.unit == "rows":
            if self.amount > n:
                raise InputError(
                    f"budget: must be at most the {n} usable rows of the pool, got {self.amount:.0f}; "
                    f"choose fewer rows or a share such as 30%"
                )
            return int(self.amount)
        if lengths is None:
            raise AssertionError("a budget in tokens needs the lengths")
        total = int(lengths.sum())
        if self.amount > total:
            raise InputError(
                f"budget: must be at most the {total} tokens of the pool, got {self.amount:.0f} tokens; choose fewer"
            )
        fitting = int(np.searchsorted(np.cumsum(np.sort(lengths)), self.amount, side="right"))
        if fitting == 0:
            raise InputError(
                f"budget: must hold at least the shortest row ({int(lengths.min())} tokens), "
                f"got {self.amount:.0f} tokens; choose more"
            )
        return fitting


def parse_budget(value: int | float | str | Budget, *, method: str | None = None) -> Budget:
    """Return the budget that a number or a text stands for.

    An int is a number of rows, a float in 0..1 a share; "1" is one row and "1.0" is everything.

    Args:
        value: number or text.
        method: that will choose the rows: the saturation point of a curve is this method's where the curve has it.

    Raises:
        InputError: the value is none of the forms, zero, negative or above 100 %.
    """
    if isinstance(value, Budget):
        return value
    budget = _from_text(value, method) if isinstance(value, str) else _from_number(value)
    if budget is None:
        raise InputError(f"budget: must be {_FORMS}, got {value!r}")
    if budget.unit != "threshold" and not budget.amount > 0:
        raise InputError(f"budget: must be larger than zero, got {value!r}; give {_FORMS}")
    if budget.unit in ("rows", "tokens") and budget.amount > _MAX_AMOUNT:
        raise InputError(f"budget: must be at most {_MAX_AMOUNT} {budget.unit}, got more; give {_FORMS}")
    if budget.unit == "share" and budget.amount > 1:
        raise InputError(f"budget: a share must be at most 100%, got {value!r}; give {_FORMS}")
    return budget


def _from_number(value: int | float) -> Budget | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    if isinstance(value, (int, np.integer)):
        return Budget("rows", int(value))
    return Budget("share", float(value)) if np.isfinite(value) else None


def _of_curve(folder: Path, method: str | None) -> Budget:
    """Return the rows at which a method saturates on a curve: the upper end of the interval.

    Where the curve does not have the method, it is the method with the best score of those that have an answer: one
    that saturates early at a low score would be no advice.
    """
    try:
        content = json.loads((folder / "saturation.json").read_bytes())
        methods, sign = content["methods"], 1 if content.get("is_higher_better", True) else -1
        said = {name: (entry["saturation"] or {}).get("status", "too few runs") for name, entry in methods.items()}
        firm = {name: methods[name]["saturation"]["high"] for name in said if said[name] in _FIRM}
        scores = {name: sign * methods[name]["points"][-1]["value"] for name in firm}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            f"budget: {folder} must be a folder that 'thresher curve' wrote, found no readable saturation.json there"
        ) from None
    wanted = [method] if method in said else list(firm)
    if not set(wanted) & set(firm):
        found = "; ".join(f"{name}: {said[name]}" for name in wanted or said) or "no method"
        raise InputError(f"budget: {folder} must hold a saturation point, found none ({found}); measure more sizes")
    best = max((name for name in wanted if name in firm), key=lambda name: scores[name])
    return Budget("rows", int(firm[best]))


def _from_text(text: str, method: str | None) -> Budget | None:
    text = text.strip()
    if text.startswith(_CURVE):
        return _of_curve(Path(text.removeprefix(_CURVE)), method)
    if match := _ROWS.fullmatch(text):
        return Budget("rows", _whole(re.sub("[_,]", "", match[1])))
    if match := _SHARE.fullmatch(text):
        return Budget("share", float(match[1]) / 100)
    if match := _TOKENS.fullmatch(text):
        return Budget("tokens", float(_whole(match[1], scale=_SCALE[match[2].lower()])))
    if match := _THRESHOLD.fullmatch(text):
        return Budget("threshold", float(match[1]))
    try:
        return _from_number(float(text)) if "." in text else None
    except ValueError:
        return None


def _whole(digits: str, *, scale: int = 1) -> int:
    """Return the whole part of a number in text times the scale; any number too large as one above the limit."""
    return int(min(float(digits) * scale, _MAX_AMOUNT + 1))


@dataclass(frozen=True)
class Quota:
    """Wanted proportions of the values of one column among the kept rows.

    Attributes:
        column: the column, for example "label" or "source".
        shares: "proportional" (as in the pool), "balanced" (equal for every value), or value -> weight; the value "*"
            stands for all that are not named.
        limits: value -> at most this many rows; "*" for every other value.
    """

    column: str
    shares: Literal["proportional", "balanced"] | Mapping[str, float] = "proportional"
    limits: Mapping[str, int] | None = None

    def __str__(self) -> str:
        """Return the form a user would type."""
        if self.limits:
            return f"{self.column}:" + ",".join(f"{name}<={limit}" for name, limit in self.limits.items())
        if isinstance(self.shares, str):
            return f"{self.column}={self.shares}"
        return f"{self.column}:" + ",".join(f"{name}={share:.15g}" for name, share in self.shares.items())

    def check(self, names: list[str]) -> None:
        """Refuse a quota that does not fit the values of its column, before anything is computed.

        Raises:
            InputError: a named value does not occur, or a value has neither a share nor a "*" to fall under.
        """
        if self.limits:
            self._check_names(self.limits, names)
        else:
            self._weights(names, np.ones(len(names), dtype=np.int64))

    def reorder(self, ranking: NDArray[np.int64], codes: NDArray[np.int64], names: list[str]) -> NDArray[np.int64]:
        """Return the ranking reordered so that every prefix keeps the proportions as nearly as whole rows allow.

        The r-th row of a group (r = 0, 1, ...) comes at (r + 1/2) / weight: the divisor method of Webster and
        Sainte-Lague, which never takes a row back when the total grows, so that the result stays nested. A group that
        runs out leaves its place to the others.

        Args:
            ranking: (k,) positions, best first.
            codes: (n,) group of each row, an index into `names`.
            names: the value behind each code.

        Raises:
            InputError: a named value does not occur, or a value has neither a share nor a "*" to fall under.
        """
        group = codes[ranking]
        by_group = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[by_group], np.arange(len(names)))
        within = np.empty(len(ranking), dtype=np.int64)  # rank of a row within its group
        within[by_group] = np.arange(len(ranking)) - starts[group[by_group]]
        if self.limits:
            return ranking[within < self._limit(names)[group]]
        weight = self._weights(names, np.bincount(codes, minlength=len(names)))[group]
        keep = np.flatnonzero(weight > 0)
        return ranking[keep[np.argsort((within[keep] + 0.5) / weight[keep], kind="stable")]]

    def _limit(self, names: list[str]) -> NDArray[np.float64]:
        limits = dict(self.limits or {})
        self._check_names(limits, names)
        return np.array([limits.get(name, limits.get("*", np.inf)) for name in names], dtype=np.float64)

    def _weights(self, names: list[str], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        if isinstance(self.shares, str):
            return sizes.astype(np.float64) if self.shares == "proportional" else np.ones(len(names))
        self._check_names(self.shares, names)
        missing = [name for name in names if name not in self.shares]
        if missing and "*" not in self.shares:
            raise InputError(
                f"quota on '{self.column}': every value needs a share, '{missing[0]}' has none"
                f"{f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''}; add it, or '*=10%' for all others"
            )
        # The share of "*" is divided among the values it stands for, in proportion to their size.
        weights = np.array([self.shares.get(name, np.nan) for name in names], dtype=np.float64)
        rest = np.isnan(weights)
        if rest.any():
            weights[rest] = self.shares["*"] * sizes[rest] / max(1, int(sizes[rest].sum()))
        return weights

    def _check_names(self, given: Mapping[str, float], names: list[str]) -> None:
        unknown = [name for name in given if name != "*" and name not in names]
        if unknown:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise InputError(f"quota on '{self.column}': '{unknown[0]}' is not a value of it; there are: {shown}")


def parse_quota(text: str | Quota) -> Quota:
    """Return the quota a text stands for.

    Forms: `label` (as in the pool), `label=balanced`, `source:web=70%,forum=30%` (`*` for all others),
    `source:web<=500,*<=100` (limits).

    Raises:
        InputError: the text is none of the forms.
    """
    if isinstance(text, Quota):
        return text
    if not isinstance(text, str):
        raise _not_a_quota(text)
    column, colon, rest = text.partition(":")
    if not colon:
        column, _, shares = text.partition("=")
        if column and shares in ("", "proportional"):
            return Quota(column, "proportional")
        if column and shares == "balanced":
            return Quota(column, "balanced")
        raise _not_a_quota(text)
    parts = [re.fullmatch(r"\s*(.+?)\s*(<=|=)\s*(\d+(?:\.\d+)?)\s*(%?)\s*", part) for part in rest.split(",")]
    operators = {match[2] for match in parts if match}
    if not column or None in parts or len(operators) != 1:
        raise _not_a_quota(text)
    numbers = {match[1]: float(match[3]) / (100 if match[4] else 1) for match in parts if match}
    if operators == {"<="}:
        if any(match[4] or "." in match[3] for match in parts if match):
            raise InputError(f"quota: a limit must be a whole number of rows, got '{text}'; give {column}:*<=100")
        return Quota(column, limits={name: int(number) for name, number in numbers.items()})
    if not sum(numbers.values()) > 0:
        raise _not_a_quota(text)
    return Quota(column, numbers)


def _not_a_quota(text: object) -> InputError:
    return InputError(
        f"quota: must be COLUMN, COLUMN=balanced, COLUMN:a=70%,b=30% or COLUMN:a<=500,*<=100, got '{text}'"
    )
