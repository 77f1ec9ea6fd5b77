"""Budgets and quotas: how many rows to keep, and from which group.

A budget is a number of rows (`500`, `10k`, `0.5M`), a share (`30%`, `0.3`), a number of tokens
(`200ktok`), a threshold on the score (`score>0.8`), or the answer of a learning curve
(`saturation:FOLDER`, which becomes a number of rows). A quota reorders a ranking so that every
prefix of it keeps the wanted proportions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thresher.artifacts.stored import read_json
from thresher.dataset.rejection import format_reasons
from thresher.errors import InputError, ManifestError

_SCALE = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_TOKENS = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)\s*tok(?:ens?)?", re.IGNORECASE)
_THRESHOLD = re.compile(r"score\s*>\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)", re.IGNORECASE)
_ROWS = re.compile(r"(\d[\d_,]*)\s*(?:rows?)?")
_MANY_ROWS = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg])\s*(?:rows?)?", re.IGNORECASE)
_MAX_AMOUNT = 10**15  # rows or tokens; whole numbers up to here are exact as floats
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_FORMS = (
    "rows (500, 10k), a share (30% or 0.3), tokens (200ktok), a threshold (score>0.8) or a curve (saturation:FOLDER)"
)
_CURVE = "saturation:"


@dataclass(frozen=True)
class Budget:
    """What to keep, in one of four units.

    Attributes:
        unit: "rows", "share" (of the rows, in 0..1), "tokens" or "threshold" (rows with a larger
            score are kept).
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

    def n_rows(
        self, n: int, lengths: NDArray[np.int64] | None = None, *, unusable: Mapping[str, int] | None = None
    ) -> int:
        """Return how many rows of a ranking over `n` rows can be needed at the most.

        Args:
            n: rows in the pool.
            lengths: (n,) tokens of each row; needed for a budget in tokens.
            unusable: rows beside these that cannot be used, by reason, for the error.

        Raises:
            InputError: the budget is larger than the pool.
        """
        if self.unit == "threshold":
            return n
        if self.unit == "share":
            return max(1, int(n * self.amount + 0.5))
        if self.unit == "rows":
            if self.amount > n:
                rejected = f" (not usable: {format_reasons(unusable)})" if unusable else ""
                raise InputError(
                    f"budget: must be at most the {n:,} usable rows of the pool{rejected}, got {self.amount:,.0f}; "
                    f"choose fewer rows or a share such as 30%"
                )
            return int(self.amount)
        if lengths is None:
            raise AssertionError("a budget in tokens needs the lengths")
        total = int(lengths.sum())
        if self.amount > total:
            raise InputError(
                f"budget: must be at most the {total:,} tokens of the pool, got {self.amount:,.0f} tokens; choose fewer"
            )
        fitting = int(np.searchsorted(np.cumsum(np.sort(lengths)), self.amount, side="right"))
        if fitting == 0:
            raise InputError(
                f"budget: must allow at least the shortest row ({int(lengths.min())} tokens), "
                f"got {self.amount:.0f} tokens; choose more"
            )
        return fitting


def parse_budget(value: int | float | str | Budget, *, method: str | None = None) -> Budget:
    """Return the budget that a number or a text stands for.

    An int is a number of rows, a float in 0..1 a share; "1" is one row and "1.0" is everything.

    Args:
        value: number or text.
        method: that will choose the rows: the answer of a curve is this method's where the curve
            has it.

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
    """Return the rows that are enough for a method on a curve: the upper end of the interval.

    Where half of the pool is not enough, it is the whole pool. Where the curve does not have the
    method, it is the method with the best score of those that have an answer.
    """
    path = folder / "saturation.json"
    try:
        content = read_json(path) if path.is_file() else {}
        methods, sign = content["methods"], 1 if content.get("is_higher_better", True) else -1
        answers = {name: entry["enough"] or {"verdict": "too few runs"} for name, entry in methods.items()}
        said = {name: answer["verdict"] for name, answer in answers.items()}
        firm = {name: answer["high"] for name, answer in answers.items() if answer["verdict"] == "enough"}
        firm |= {
            name: answer["of"]
            for name, answer in answers.items()
            if answer["verdict"] == "all" and answer["is_whole_pool"]
        }
        scores = {name: sign * methods[name]["points"][-1]["value"] for name in firm}
    except ManifestError as error:
        raise InputError(f"budget: {error}") from None
    except (LookupError, TypeError, AttributeError):
        raise InputError(
            f"budget: {folder} must be a folder that 'thresher curve' wrote, found no readable saturation.json there"
        ) from None
    if content.get("unit", "rows") != "rows":
        raise InputError(f"budget: {folder} must be a curve over rows, got one over {content['unit']}")
    if content.get("unfinished"):
        raise InputError(f"budget: {folder} holds an incomplete curve; complete it with the command that wrote it")
    wanted = [method] if method in said else list(firm)
    if not set(wanted) & set(firm):
        found = "; ".join(f"{name}: {said[name]}" for name in wanted or said) or "no method"
        raise InputError(
            f"budget: {folder} must say how many rows are enough, but it cannot ({found}); its answer says what "
            f"would help, such as more test rows, seeds or sizes"
        )
    best = max((name for name in wanted if name in firm), key=lambda name: scores[name])
    return Budget("rows", int(firm[best]))


def _from_text(text: str, method: str | None) -> Budget | None:
    text = text.strip()
    if text.startswith(_CURVE):
        return _of_curve(Path(text.removeprefix(_CURVE)), method)
    if match := _ROWS.fullmatch(text):
        return Budget("rows", _whole(re.sub("[_,]", "", match[1])))
    if match := _MANY_ROWS.fullmatch(text):
        return Budget("rows", _whole(match[1], scale=_SCALE[match[2].lower()]))
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
    """Return the whole part of a number in text times the scale.

    Any number too large as one above the limit.
    """
    return int(round(min(float(digits) * scale, _MAX_AMOUNT + 1), 3))
