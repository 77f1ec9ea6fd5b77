"""Quota: how many rows each group of rows may fill."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError

# one value with its number: "quoted" or not, the sign, the number, its percent sign, a comma
PART = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]+?))\s*(<=|=)\s*(\d+(?:\.\d+)?(?:e[-+]?\d+)?)\s*(%?)\s*(?:(,)|$)')

NamedShares = Literal["proportional", "sqrt", "balanced"]


@dataclass(frozen=True)
class Quota:
    """Wanted proportions of the values of one column among the kept rows.

    Attributes:
        column: the column, for example "label" or "source".
        shares: "proportional" (as in the pool), "balanced" (equal for every value), "sqrt" (by the
            square root of each value's rows in the pool), or value -> weight; the value "*" stands
            for all that are not named.
        limits: value -> at most this many rows; "*" for every other value.
    """

    column: str
    shares: NamedShares | Mapping[str, float] = "proportional"
    limits: Mapping[str, int] | None = None

    def __str__(self) -> str:
        """Return the form a user would type."""
        column = _quote(self.column)
        if self.limits:
            return f"{column}:" + ",".join(f"{_quote(name)}<={limit}" for name, limit in self.limits.items())
        if isinstance(self.shares, str):
            return f"{column}={self.shares}"
        return f"{column}:" + ",".join(f"{_quote(name)}={share:.15g}" for name, share in self.shares.items())

    def check(self, names: list[str]) -> None:
        """Refuse a quota that does not fit the values of its column, before anything is computed.

        Raises:
            InputError: a named value does not occur, or a value has neither a share nor a "*" to
                fall under.
        """
        if self.limits:
            self._check_names(self.limits, names)
        else:
            self._weights(names, np.ones(len(names), dtype=np.int64))

    def reorder(self, ranking: NDArray[np.int64], codes: NDArray[np.int64], names: list[str]) -> NDArray[np.int64]:
        """Reorder a ranking so that every prefix has the proportions, as near as whole rows allow.

        The r-th row of a group (r = 0, 1, ...) comes at (r + 1/2) / weight: the divisor method of
        Webster and Sainte-Lague, which never takes a row back when the total grows, so that the
        result stays nested. A group that runs out leaves its place to the others.

        Args:
            ranking: (k,) positions, best first.
            codes: (n,) group of each row, an index into `names`.
            names: the value behind each code.

        Raises:
            InputError: a named value does not occur, or a value has neither a share nor a "*" to
                fall under.
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
            exponent = {"proportional": 1.0, "sqrt": 0.5, "balanced": 0.0}[self.shares]
            return np.asarray(sizes, dtype=np.float64) ** exponent
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
            raise InputError(
                f"quota on '{self.column}': '{unknown[0]}' is not a value of this column; its values: {shown}"
            )


def parse_quota(text: str | Quota) -> Quota:
    """Return the quota a text stands for.

    Forms: `label` (as in the pool), `label=balanced`, `label=sqrt`, `source:web=70%,forum=30%` (`*`
    for all others), `source:web<=500,*<=100` (limits). A name that holds a comma, a colon or a sign
    of these forms stands in double quotes, as in `source:"a, b"=70%,*=30%`; a quote in it is
    written twice.

    Raises:
        InputError: the text is none of the forms.
    """
    if isinstance(text, Quota):
        return text
    if not isinstance(text, str):
        raise _not_a_quota(text)
    column, rest = _take_column(text)
    if not rest.startswith(":"):
        shares = rest[1:] or "proportional"
        if column and shares in get_args(NamedShares):
            return Quota(column, cast(NamedShares, shares))
        raise _not_a_quota(text)
    parts = _match_parts(rest)
    operators = {match[3] for match in parts}
    if not column or not parts or len(operators) != 1:
        raise _not_a_quota(text)
    names = [match[2] if match[1] is None else match[1].replace('""', '"') for match in parts]
    numbers = {name: float(match[4]) / (100 if match[5] else 1) for name, match in zip(names, parts, strict=True)}
    if operators == {"<="}:
        if any(match[5] or not match[4].isdigit() for match in parts):
            raise InputError(f"quota: a limit must be a whole number of rows, got '{text}'; give {column}:*<=100")
        return Quota(column, limits={name: int(number) for name, number in numbers.items()})
    if not sum(numbers.values()) > 0:
        raise _not_a_quota(text)
    return Quota(column, numbers)


def _match_parts(rest: str) -> list[re.Match[str]]:
    """Return each value with its number; none where one of them is no such thing."""
    parts, end = [], 1
    while end <= len(rest):
        match = PART.match(rest, end)
        if match is None:
            return []
        parts.append(match)
        end = match.end() if match[6] else len(rest) + 1
    return parts


def _take_column(text: str) -> tuple[str, str]:
    """Return the column, and what stands behind it with its sign."""
    quoted = re.match(r'"((?:[^"]|"")*)"(?=[:=]|$)', text)
    if quoted is not None:
        return quoted[1].replace('""', '"'), text[quoted.end() :]
    column, colon, rest = text.partition(":")
    if colon:
        return column, f":{rest}"
    column, sign, rest = text.partition("=")
    return column, f"{sign}{rest}"


def _quote(name: str) -> str:
    """Return a name as it can be read back."""
    if not set(name) & set(',:=<"') and name == name.strip():
        return name
    return '"' + name.replace('"', '""') + '"'


def _not_a_quota(text: object) -> InputError:
    return InputError(
        f"quota: must be COLUMN, COLUMN=balanced, COLUMN=sqrt, COLUMN:a=70%,b=30% or COLUMN:a<=500,*<=100, got '{text}'"
    )
