"""Expression: a condition on the user's columns, written in SQL."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from thresher.curation.rule import Rows, Rule
from thresher.curation.verdict import Verdict
from thresher.errors import InputError, NotFoundError, SettingsError

if TYPE_CHECKING:
    from thresher.dataset import Dataset

MAX_CHARACTERS = 2_000
CANONICAL = ("row_id", "prompt", "response", "file", "line")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# What lets the parser see other quotes than `_QUOTED` does, and so hides words from the search:
# comments, other quotes than these two, a quote without its end, and literals with a prefix, in
# which a backslash may be special.
_HIDES = re.compile(r"--|/\*|[#$`'\"]|\b(?:[enbrxq]|nq|br|rb|u&)\?", re.IGNORECASE)
_ESCAPED = re.compile(r"\\['\"]")
_GROWS = re.compile(r"\b(?:[lr]pad|replace)\b", re.IGNORECASE)  # these make texts of any length
_SLICE_BYTES = 4 << 20  # at once: texts joined again and again grow some hundred times
# What polars calls functions that look at one row at a time.
_ROW_WISE_FUNCTIONS = {"StringExpr", "Abs", "Coalesce", "Round", "Floor", "Ceil", "Pow", "TemporalExpr"}
_ROW_WISE_BOOLEANS = {"IsNull", "IsNotNull", "IsNan", "IsNotNan", "IsFinite", "IsInfinite", "IsBetween", "IsIn", "Not"}
_REACHES_OUT = re.compile(r"\b(select|from|join|with|read_\w+|scan_\w+)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Expression(Rule):
    """Keep rows for which an SQL condition on their columns is true.

    The condition is parsed by polars' SQL, not by Python: nothing in it is executed. It may use
    comparison, arithmetic, AND, OR, NOT, IN, LIKE, BETWEEN, CASE and polars' SQL functions (LENGTH,
    LOWER, REGEXP_LIKE, STARTS_WITH, ...), and no subquery, no comment, and no function that reads a
    file, pads or replaces. Regular expressions are Rust's, whose time is linear in the text. A
    condition on single rows is evaluated on a few MB of them at a time.

    Columns are the user's; `row_id`, `prompt`, `response`, `file` and `line` are the canonical ones
    where the user has no column of that name. A row for which the condition has no value (a column
    is empty) is dropped as `no-value`.

    Attributes:
        where: the condition, at most 2,000 characters, such as "stars >= 4 AND LENGTH(response) <
            4000".
    """

    name: ClassVar[str] = "expression"

    where: str

    def __post_init__(self) -> None:
        self._parse()

    def _parse(self) -> pl.Expr:
        if not isinstance(self.where, str) or not self.where.strip():
            raise SettingsError(f"{self.name}: where must be a condition such as 'stars >= 4', got {self.where!r}")
        if len(self.where) > MAX_CHARACTERS:
            raise SettingsError(
                f"{self.name}: where must have at most {MAX_CHARACTERS:,}, got {len(self.where):,} characters"
            )
        plain = _QUOTED.sub("?", self.where)
        hidden = _HIDES.search(plain) or _ESCAPED.search(self.where)
        if hidden:
            raise SettingsError(
                f"{self.name}: where must hold no comment and no quotes but whole '...' and \"...\", without prefix or "
                f"backslash, found {hidden[0]!r}; leave it out"
            )
        forbidden = _REACHES_OUT.search(plain) or _GROWS.search(plain)
        if forbidden:
            raise SettingsError(
                f"{self.name}: where must look at the row's own columns, found '{forbidden[0]}'; leave it out"
            )
        try:
            return pl.sql_expr(self.where)
        except pl.exceptions.PolarsError as error:
            problem = str(error).splitlines()[0]
            raise SettingsError(
                f"{self.name}: where must be an SQL condition, got {self.where!r} ({problem})"
            ) from None

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row for which the condition is not true.

        Raises:
            InputError: the condition does not fit the columns' types, or is no condition.
        """
        condition = self._parse()
        frame = _read_columns(pool.dataset, condition.meta.root_names(), self.name)
        try:
            values = [part.select(condition.alias("value")).to_series() for part in _slice_rows(frame, condition)]
            value = pl.concat(values)
        except pl.exceptions.PolarsError as error:
            problem = str(error).splitlines()[0]
            raise InputError(f"{self.name}: {self.where!r} must fit the columns, found: {problem}") from None
        if value.dtype != pl.Boolean:
            raise InputError(
                f"{self.name}: {self.where!r} must be true or false, got {value.dtype}; compare it with a value"
            )
        value = value.new_from_index(0, len(pool)) if len(value) == 1 and len(values) == 1 else value
        is_null, is_dropped = pl.col("value").is_null(), ~pl.col("value").fill_null(value=False)
        start = pl.when(is_null).then(pl.lit("has no value for: ")).otherwise(pl.lit("does not satisfy: "))
        parts = (
            value.alias("value")
            .to_frame()
            .select(
                reason=pl.when(is_dropped).then(
                    pl.when(is_null).then(pl.lit("no-value")).otherwise(pl.lit("condition"))
                ),
                explanation=pl.when(is_dropped).then(start + pl.lit(self.where)),
            )
        )
        return Verdict.from_frame(parts)


def _slice_rows(frame: pl.DataFrame, condition: pl.Expr) -> list[pl.DataFrame]:
    """Return parts of the rows to evaluate the condition on; one where it may compare rows."""
    content = json.loads(condition.meta.serialize(format="json"))
    if not condition.meta.root_names() or not _is_row_wise(content):
        return [frame]
    n_parts = max(1, -(-int(frame.estimated_size()) // _SLICE_BYTES))
    return list(frame.iter_slices(max(1, -(-frame.height // n_parts))))


def _is_row_wise(node: Any) -> bool:
    """Tell whether an operation looks at one row at a time; an unknown one is taken not to."""
    if not isinstance(node, dict) or len(node) != 1:
        return False
    ((kind, inside),) = node.items()
    if kind in ("Column", "Literal"):
        return True
    if kind == "Function":
        return _is_function_row_wise(inside["function"]) and all(map(_is_row_wise, inside["input"]))
    if kind == "Alias":
        return _is_row_wise(inside[0])
    parts = {"BinaryExpr": ("left", "right"), "Cast": ("expr",), "Ternary": ("predicate", "truthy", "falsy")}.get(kind)
    return parts is not None and all(_is_row_wise(inside[part]) for part in parts)


def _is_function_row_wise(function: Any) -> bool:
    name, inside = _split_variant(function)
    if name == "Boolean":
        return _split_variant(inside)[0] in _ROW_WISE_BOOLEANS
    return name in _ROW_WISE_FUNCTIONS and _split_variant(inside)[0] != "ConcatVertical"


def _split_variant(node: Any) -> tuple[str, Any]:
    """Return the name of a variant and what is in it, from "Name" or {"Name": inside}."""
    ((name, inside),) = node.items() if isinstance(node, dict) and len(node) == 1 else [(str(node), None)]
    return name, inside


def _read_columns(rows: Dataset, names: list[str], rule: str) -> pl.DataFrame:
    """Return the named columns, the user's or the canonical ones; at least one, for n rows."""
    columns = {"row_id": rows.frame["row_id"]}
    for name in dict.fromkeys(names):
        if name in CANONICAL and name not in rows.column_names:
            columns[name] = rows.frame[name]
        else:
            try:
                columns[name] = rows.column(name)
            except NotFoundError as error:
                raise NotFoundError(f"{rule}: {error}") from None
    return pl.DataFrame(columns)
