"""Schemas: which columns hold the prompt, the response, the label; how they are recognized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from thresher.errors import InputError, SettingsError, did_you_mean

Kind = Literal["sft", "classification", "text"]
ROLES = ("prompt", "response", "text", "label", "messages", "system", "history", "tools")
SCHEMA_NAMES = ("messages", "sharegpt", "alpaca", "prompt-completion", "query-response", "text-label", "text", "mapped")
MAP_SYNTAX = (
    "--map prompt=COLUMN,response=COLUMN (or text=COLUMN,label=COLUMN; text=COLUMN; messages=COLUMN; "
    "A+B joins two columns)"
)
_TEXT, LABELS = ("text", "sentence", "input"), ("label", "category", "intent", "class", "labels")
_PAIRS = (  # texts that a label is about together
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("question", "sentence"),
)
_SYSTEM = ("system", "system_prompt")
FUNCTIONS = "functions"  # tools in OpenAI's first form
_LISTED = 8  # names of columns in a line


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How the user's columns become prompt and response.

    Attributes:
        name: one of `SCHEMA_NAMES`.
        kind: "sft", "classification" or "text".
        columns: role -> the user's columns. Roles: prompt, response, system, history, text, label,
            messages, tools. Several columns are joined by line feeds; blank ones are left out.
        label_names: names of the classes where labels are stored as numbers
            (`datasets.ClassLabel`), else None.
        id_column: the column that names the rows, else None.
        integer_columns: columns that hold whole numbers where text is possible too (labels, ids).
        has_number_labels: labels are texts that write numbers, some perhaps with a point ("1.0"),
            as a CSV file has them where whole numbers went through a table of floats: these count
            as whole numbers.
        wanted: the column that marks the rows to keep (true, 1), else None.
    """

    name: str
    kind: Kind
    columns: Mapping[str, tuple[str, ...]]
    label_names: tuple[str, ...] | None = None
    id_column: str | None = None
    integer_columns: frozenset[str] = field(default=frozenset())
    has_number_labels: bool = False
    wanted: str | None = None

    @property
    def is_chat(self) -> bool:
        """Whether rows hold lists of messages."""
        return "messages" in self.columns

    @property
    def required(self) -> tuple[tuple[str, ...], ...]:
        """The groups of columns of which each row must fill at least one."""
        roles = ("prompt", "response", "text", "label", "messages")
        return tuple(self.columns[role] for role in roles if role in self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Every column of the user that is read, each once."""
        names = dict.fromkeys(name for group in self.columns.values() for name in group)
        named = (self.id_column, self.wanted)
        return tuple(dict.fromkeys([*names, *(name for name in named if name is not None)]))

    def split_columns(self, columns: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Return role -> columns that are read, and the other columns, of rows with these."""
        read = {role: [name for name in names if name in columns] for role, names in self.columns.items()}
        filled = {role: names for role, names in read.items() if names}
        return filled, [name for name in columns if name not in self.column_names]

    def describe(self, columns: Sequence[str]) -> str:
        """Return how rows with these columns are read: "text-label: text=text, label=kind"."""
        read, others = self.split_columns(columns)
        roles = ", ".join(f"{role}={'+'.join(names)}" for role, names in read.items())
        roles += f", wanted={self.wanted}" if self.wanted is not None else ""
        more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
        return f"{self.name}: {roles or 'none of its columns'}" + (
            f"; other columns: {', '.join(others[:_LISTED])}{more}" if others else ""
        )


# name -> kind, role -> alternatives; an alternative in parentheses joins columns, of which the
# first must exist, and of a pair both
_KNOWN: dict[str, tuple[Kind, dict[str, tuple[tuple[str, ...], ...]]]] = {
    "messages": ("sft", {"messages": (("messages",),)}),
    "sharegpt": ("sft", {"messages": (("conversations",), ("conversation",))}),
    "alpaca": (
        "sft",
        {"prompt": (("instruction", "input"), ("instruction", "context")), "response": (("output",), ("response",))},
    ),
    "prompt-completion": ("sft", {"prompt": (("prompt",),), "response": (("completion",), ("response",))}),
    "query-response": (
        "sft",
        {
            "prompt": (("query", "context"), ("question", "context"), ("input", "context")),
            "response": (("response",), ("answer",), ("output",)),
        },
    ),
    "text-label": (
        "classification",
        {"text": (*((name,) for name in _TEXT), *_PAIRS), "label": tuple((name,) for name in LABELS)},
    ),
    "text": ("text", {"text": (("text",),)}),
}
_OPTIONAL: dict[str, dict[str, tuple[str, ...]]] = {
    "messages": {"tools": ("tools", FUNCTIONS), "system": _SYSTEM},
    "sharegpt": {"tools": ("tools", FUNCTIONS), "system": _SYSTEM},
    "alpaca": {"system": _SYSTEM, "history": ("history",), "tools": ("tools",)},
    "prompt-completion": {"system": _SYSTEM, "history": ("history",), "tools": ("tools",)},
    "query-response": {"system": _SYSTEM, "history": ("history",), "tools": ("tools",)},
}


def build_mapped_schema(columns: Mapping[str, str]) -> Schema:
    """Return the schema for a user's own mapping of roles to columns.

    Args:
        columns: role -> column, or "A+B" for columns to join. Roles: prompt and response (and
            system); text and label; text alone; messages.

    Raises:
        SettingsError: a role is unknown, or the roles do not fit together.
    """
    for role, name in columns.items():
        if role not in ROLES:
            raise SettingsError(f"--map: unknown role '{role}'; known: {', '.join(ROLES)}{did_you_mean(role, ROLES)}")
        if not isinstance(name, str) or not all(part.strip() for part in name.split("+")):
            raise SettingsError(f"--map: the column for '{role}' must be a name or names joined by '+', got '{name}'")
    roles = set(columns)
    kinds: dict[frozenset[str], Kind] = {
        frozenset({"messages"}): "sft",
        frozenset({"prompt", "response"}): "sft",
        frozenset({"text", "label"}): "classification",
        frozenset({"prompt", "label"}): "classification",
        frozenset({"text"}): "text",
    }
    kind = kinds.get(frozenset(roles - {"system", "history", "tools"}))
    if kind is None or (kind != "sft" and roles & {"system", "history", "tools"}):
        named = ", ".join(sorted(roles)) or "none"
        raise SettingsError(f"--map: the roles {named} do not fit together; give {MAP_SYNTAX}")
    split = {role: tuple(part.strip() for part in name.split("+")) for role, name in columns.items()}
    if kind == "classification" and "prompt" in split:
        split["text"] = split.pop("prompt")
    for role in ("response", "label", "messages", "system", "history", "tools"):
        if len(split.get(role, ())) > 1:
            raise SettingsError(f"--map: '{role}' takes one column, got '{columns[role]}'")
    return Schema(name="mapped", kind=kind, columns=split)


def build_named_schema(name: str) -> Schema:
    """Return a known schema with the first alternative of each role, as far as no rows tell more.

    Args:
        name: one of `SCHEMA_NAMES` but "mapped".
    """
    kind, roles = _KNOWN[name]
    first = {role: alternatives[0] for role, alternatives in roles.items()}
    return Schema(name=name, kind=kind, columns=first | _OPTIONAL.get(name, {}))


def recognize_schema(rows: Sequence[Mapping[str, Any]], *, name: str | None, where: str, advice: str = "") -> Schema:
    """Return the schema that a sample of rows has.

    Known schemas are tried in order; one is taken when at least half of the rows have its columns,
    else the one that most rows have.

    Args:
        rows: up to some hundred good rows.
        name: the schema the user named, or None.
        where: name of the file, for messages.
        advice: what else to do when no schema fits.

    Raises:
        InputError: no known schema fits.
        SettingsError: the name is unknown.
    """
    if name is not None and name not in _KNOWN:
        known = ", ".join(_KNOWN)
        raise SettingsError(f"schema must be one of {known}, got '{name}'{did_you_mean(name, _KNOWN)}")
    columns = count_columns(rows)
    candidates = [_fit_schema(known, columns, rows) for known in ([name] if name is not None else _KNOWN)]
    fitting = [(schema, n) for schema, n in candidates if n > 0]
    if not fitting:
        expected = "a known schema" if name is None else f"schema '{name}' ({_describe_needs(name)})"
        raise InputError(
            f"{where}: the columns of {expected} are required, found the columns {_quote_names(columns)}; "
            f"name them with {MAP_SYNTAX}{advice}"
        )
    for schema, n in fitting:
        if 2 * n >= len(rows):
            return schema
    return max(fitting, key=lambda pair: pair[1])[0]


def count_columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return in how many rows each column occurs, in order of first appearance."""
    counts: dict[str, int] = {}
    for row in rows:
        for column in row:
            counts[column] = counts.get(column, 0) + 1
    return counts


def _fit_schema(name: str, columns: Mapping[str, int], rows: Sequence[Mapping[str, Any]]) -> tuple[Schema, int]:
    """Return the schema with the columns most rows have, and how many rows have all of them."""
    kind, roles = _KNOWN[name]
    chosen: dict[str, tuple[str, ...]] = {}
    for role, alternatives in roles.items():
        scores = [_count_occurrences(group, columns) for group in alternatives]
        chosen[role] = alternatives[scores.index(max(scores))]
    keys = [key for group in chosen.values() for key in _list_required(group)]
    n = sum(all(key in row for key in keys) for row in rows) if len(set(keys)) == len(keys) else 0
    chosen |= _OPTIONAL.get(name, {})
    return Schema(name=name, kind=kind, columns=chosen), n


def _list_required(group: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns of an alternative that must exist."""
    return group if group in _PAIRS else group[:1]


def _count_occurrences(group: tuple[str, ...], columns: Mapping[str, int]) -> tuple[int, ...]:
    """Return in how many rows each column of an alternative occurs; of a pair, both."""
    counts = tuple(columns.get(column, 0) for column in group)
    return (min(counts),) * len(counts) if group in _PAIRS else counts


def _describe_needs(name: str) -> str:
    _, roles = _KNOWN[name]
    return "; ".join(
        " or ".join(dict.fromkeys(" and ".join(_list_required(group)) for group in groups)) for groups in roles.values()
    )


def _quote_names(columns: Iterable[str]) -> str:
    names = [f"'{name}'" for name in columns]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "none"


def infer_column_types(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> Schema:
    """Return the schema with what the sample says of labels and ids: whether they are whole."""
    names = [*schema.columns.get("label", ()), *([schema.id_column] if schema.id_column is not None else [])]
    whole = frozenset(
        name
        for name in names
        if all(type(row[name]) is int for row in rows if row.get(name) is not None)
        and any(row.get(name) is not None for row in rows)
    )
    return replace(schema, integer_columns=whole)


def has_columns(
    rows: Sequence[Mapping[str, Any]], *, schema: str | Schema | None, columns: Mapping[str, str] | None
) -> bool:
    """Tell whether any row has all that a schema or a mapping needs; True where none is given.

    Raises:
        SettingsError: the schema's name or a role is unknown.
    """
    if columns is not None:
        schema = build_mapped_schema(columns)
    if isinstance(schema, Schema):
        groups = schema.required
        return any(all(any(name in row for name in group) for group in groups) for row in rows)
    if schema is None or schema not in _KNOWN:  # `recognize_schema` refuses an unknown name
        return True
    return _fit_schema(schema, count_columns(rows), rows)[1] > 0


def check_columns_exist(schema: Schema, columns: Iterable[str], *, where: str) -> None:
    """Refuse a mapping, an id column or a mark that no row of the sample has.

    Raises:
        InputError: a column was named that is not there.
    """
    names = list(columns)
    required = [name for group in schema.required for name in group] if schema.name == "mapped" else []
    required += [name for name in (schema.id_column, schema.wanted) if name is not None]
    for name in required:
        if name not in names:
            raise InputError(
                f"{where}: column '{name}' is required, found {_quote_names(names)}{did_you_mean(name, names)}"
            )
