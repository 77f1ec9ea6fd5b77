"""From the user's columns to prompt and response: row by row, and by column where rows are plain.

`canonicalize_row` alone decides what a row means. `canonicalize_columns` is its fast form for whole
blocks: it vouches only for rows that are plainly good, and leaves the others to `canonicalize_row`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from thresher.dataset.conversation import (
    WHITE_SPACE,
    CanonicalText,
    Conversation,
    build_canonical_text,
    build_turns,
    drop_nulls,
    is_blank,
    mark_unlearned,
    parse_tools,
    parse_turns,
    refuse_nul,
)
from thresher.dataset.formats.json_rows import RowWithNan
from thresher.dataset.rejection import BadRow, describe_type
from thresher.dataset.schema import FUNCTIONS, Schema
from thresher.dataset.values.labels import clean_label, describe_nan, refuse_several
from thresher.dataset.values.marks import refuse_unwanted
from thresher.dataset.values.series import to_series

NO_CLASS = -1  # as `datasets` numbers rows without a class
CANONICAL_SCHEMA = {"index": pl.Int64, **dict.fromkeys(("prompt", "response", "extra", "row_id"), pl.String)}


def canonicalize_row(row: Mapping[str, Any], schema: Schema, *, is_typed: bool = False) -> CanonicalText:
    """Return the text of one row; a row that cannot be used raises BadRow with the reason.

    Args:
        row: of the user.
        schema: how its columns are read.
        is_typed: the row is from a table, whose structs have a null for every field they lack.
    """
    _refuse_other_schema(row, schema)
    if isinstance(row, RowWithNan):
        _refuse_nan([row.get(name) for name in schema.column_names])
    if schema.wanted is not None:
        refuse_unwanted(row, schema.wanted)
    row_id = None if schema.id_column is None else _read_id(row, schema.id_column)
    if schema.kind == "text":
        text = CanonicalText("", join_text(row, schema.columns["text"]))
    elif schema.kind == "classification":
        prompt = join_text(row, schema.columns["text"])
        text = CanonicalText(prompt, format_label(row, schema))
    else:
        conversation = build_conversation(row, schema, is_typed=is_typed)
        text = build_canonical_text(conversation)
        if not schema.is_chat and not holds_messages(row, schema) and conversation.tools is None:
            text = CanonicalText(text.prompt, text.response)
    return CanonicalText(text.prompt, text.response, text.extra, row_id)


def build_conversation(row: Mapping[str, Any], schema: Schema, *, is_typed: bool = False) -> Conversation:
    """Return the messages of one row of a schema of kind "sft"; see `canonicalize_row`."""
    columns = schema.columns
    names = [name for role in ("messages", "prompt", "response", "tools") for name in columns.get(role, ())]
    if is_typed:
        row = {**row, **{name: drop_nulls(row[name]) for name in names if isinstance(row.get(name), list)}}
    system = read_optional(row, columns.get("system", ()))
    if not schema.is_chat and not holds_messages(row, schema):
        prompt = join_text(row, columns["prompt"])
        response = join_text(row, columns["response"])
        tools = _read_tools_beside_text(row, columns["tools"][0]) if "tools" in columns else None
        history = _read_history(row, schema)
        return Conversation(mark_unlearned(build_turns(prompt, response, system, history)), tools)
    if schema.is_chat:
        name = columns["messages"][0]
        if row.get(name) is None:
            raise BadRow(_describe_absence(row, (name,)))
        turns = parse_turns(row[name], name)
    else:
        turns = [
            turn for name in (columns["prompt"][0], columns["response"][0]) for turn in parse_turns(row.get(name), name)
        ]
    tools = _read_tools(row, columns.get("tools", ()))
    return Conversation(_add_system(mark_unlearned(turns), system), tools)


def _read_history(row: Mapping[str, Any], schema: Schema) -> Any:
    """Return the earlier turns of a row of texts; but for alpaca's, the column may be anything."""
    name = schema.columns.get("history", ("",))[0]
    value = row.get(name)
    if schema.name in ("alpaca", "mapped") or isinstance(value, list):
        return value
    return value if isinstance(value, str) and value.lstrip(WHITE_SPACE).startswith("[[") else None


def _read_tools(row: Mapping[str, Any], names: Sequence[str]) -> list[Any] | None:
    """Return the tools of a row from the first column that has any, functions as tools."""
    for name in names:
        tools = parse_tools(row.get(name), name)
        if tools is not None:
            is_first_form = name == FUNCTIONS and all(isinstance(each, dict) and "name" in each for each in tools)
            return [{"type": "function", "function": each} for each in tools] if is_first_form else tools
    return None


def _read_tools_beside_text(row: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return the tools of a row of texts, whose column of this name may be about anything."""
    value = row.get(name)
    if isinstance(value, list) or (isinstance(value, str) and value.lstrip(WHITE_SPACE).startswith("[")):
        tools = parse_tools(value, name)
        return tools if tools is not None and all(isinstance(tool, dict) for tool in tools) else None
    return None


def _add_system(turns: list[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    """Return the turns behind the system prompt of another column, unless they have their own."""
    if system is None:
        return turns
    if turns[0]["role"] == "system":
        return turns if turns[0]["content"] else [{**turns[0], "content": system}, *turns[1:]]
    return [{"role": "system", "content": system}, *turns]


def holds_messages(row: Mapping[str, Any], schema: Schema) -> bool:
    """Tell whether prompt and completion are lists of messages, as trl reads them."""
    return not schema.is_chat and isinstance(row.get(schema.columns["prompt"][0]), list)


def join_text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the text of one or several columns, joined by line feeds without the blank ones."""
    parts = []
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise BadRow(f"field '{name}' must be text, found {_describe_value(value)}")
        refuse_nul(value, name)
        if not is_blank(value):
            parts.append(value)
    if not parts:
        raise BadRow(_describe_absence(row, names))
    return "\n".join(parts)


def format_label(row: Mapping[str, Any], schema: Schema) -> str:
    """Return a label as text: whole numbers in decimals, or by the name of their class."""
    name, label_names = schema.columns["label"][0], schema.label_names
    value = row.get(name)
    if isinstance(value, list | dict) and not value:
        raise BadRow(_describe_absence(row, (name,)))
    if isinstance(value, list):
        raise BadRow(refuse_several(name))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        raise BadRow(describe_nan(name))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        if label_names is None:
            return str(value)
        if value == NO_CLASS:
            raise BadRow(f"field '{name}' is {NO_CLASS}, which stands for no class")
        if not 0 <= value < len(label_names):
            raise BadRow(f"field '{name}' must be a class number in 0..{len(label_names) - 1}")
        return label_names[value]
    return clean_label(_read_name(row, name), name, are_numbers=schema.has_number_labels)


def _read_name(row: Mapping[str, Any], name: str) -> str:
    """Return the text of a label or an id, which could have been a whole number too."""
    value = row.get(name)
    if not isinstance(value, str | None):
        raise BadRow(f"field '{name}' must be text or a whole number, found {_describe_value(value)}")
    return join_text(row, (name,))


def _refuse_nan(value: Any) -> None:
    """Raise BadRow for values that hold NaN or Infinity at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRow(f"the row holds {'NaN' if math.isnan(value) else 'Infinity'}, which is not JSON")
    if isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            _refuse_nan(one)


def read_optional(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the text of columns that need not be there, None where all are blank."""
    if all(value is None or (isinstance(value, str) and is_blank(value)) for value in map(row.get, names)):
        return None
    return join_text(row, names)


def _read_id(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _read_name(row, name)


def _describe_value(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return "NaN" if math.isnan(value) else "a fraction"
    return describe_type(value)


def _describe_absence(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Say how the columns are absent: missing, null, or empty."""
    values = [row[name] for name in names if name in row]
    state = "missing" if not values else "null" if all(value is None for value in values) else "empty"
    return f"field '{names[0]}' is {state}" if len(names) == 1 else f"fields {_quote_names(names)} are {state}"


def _refuse_other_schema(row: Mapping[str, Any], schema: Schema) -> None:
    groups = schema.required
    if len(groups) > 1 and not any(name in row for group in groups for name in group):
        raise BadRow(f"fields {_quote_names([group[0] for group in groups])} of schema {schema.name} are missing")


def _quote_names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def canonicalize_columns(table: pa.Table, schema: Schema) -> pl.DataFrame:
    """Return the canonical columns of the rows that are plainly good.

    Args:
        table: columns of the user, at least those of `schema.column_names` that exist.
        schema: any schema; of a chat schema no row is plainly good.

    Returns:
        Frame with the columns of `CANONICAL_SCHEMA`; `index` is the row in `table`, ascending.
    """
    columns = None if schema.is_chat else _read_columns(table, schema)
    if columns is None:
        return pl.DataFrame(schema=CANONICAL_SCHEMA)
    if schema.kind == "sft":
        prompt, response = _join_columns(schema.columns["prompt"]), _join_columns(schema.columns["response"])
        if "system" in schema.columns:
            system = _join_columns(schema.columns["system"])
            with_system = pl.format("system: {}\nuser: {}", system, prompt)
            prompt = pl.when((system != "") & (prompt != "")).then(with_system).otherwise(prompt)
    elif schema.kind == "classification":
        prompt, response = _join_columns(schema.columns["text"]), _join_columns(schema.columns["label"])
        columns = _clean_labels(columns, schema)
    else:
        prompt, response = pl.lit(""), _join_columns(schema.columns["text"])
    row_id = pl.lit(None, pl.String) if schema.id_column is None else _join_columns((schema.id_column,))
    frame = columns.lazy().select(
        pl.int_range(pl.len()).alias("index"),
        prompt.alias("prompt"),
        response.alias("response"),
        pl.lit("").alias("extra"),
        row_id.alias("row_id"),
        pl.col("is_plain"),
    )
    good = pl.col("is_plain") & (pl.col("response") != "")
    if schema.kind != "text":
        good &= pl.col("prompt") != ""
    if schema.id_column is not None:
        good &= pl.col("row_id") != ""
    return frame.filter(good).drop("is_plain").collect()


def _clean_labels(columns: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Return the columns with each label as `clean_label` writes it, null where it raises."""
    name = schema.columns["label"][0]
    labels = columns[name].unique().drop_nulls().to_list()
    cleaned: dict[str, str | None] = {}
    for label in labels:
        try:
            text = "" if is_blank(label) else clean_label(label, name, are_numbers=schema.has_number_labels)
        except BadRow:
            text = None
        if text != label:
            cleaned[label] = text
    return columns.with_columns(pl.col(name).replace(cleaned)) if cleaned else columns


def _read_columns(table: pa.Table, schema: Schema) -> pl.DataFrame | None:
    """Return the needed columns as text, and `is_plain`: rows without NUL, history and tools."""
    is_plain = pl.lit(value=True)
    series: list[pl.Series] = []
    history, tools = (schema.columns.get(role, ("",))[0] for role in ("history", "tools"))
    for name in schema.column_names:
        if name not in table.column_names:
            column = pl.repeat(None, table.num_rows, dtype=pl.String, eager=True)
        elif name == history:
            series.append(_is_empty_list(table[name]).alias("no history"))
            is_plain &= pl.col("no history")
            continue
        elif name == tools:
            series.append(_has_no_tools(table[name]).alias("no tools"))
            is_plain &= pl.col("no tools")
            continue
        else:
            found = _column_to_text(table[name], schema, name)
            if found is None:
                return None
            column = found
        series.append(column.alias(name))
        is_plain &= ~pl.col(name).str.contains("\0", literal=True).fill_null(value=False)
    return pl.DataFrame(series).with_columns(is_plain.alias("is_plain"))


def _column_to_text(column: pa.ChunkedArray, schema: Schema, name: str) -> pl.Series | None:
    """Return a column as text, or None when its type is for `canonicalize_row` to judge.

    By polars: a cast of pyarrow imports `pyarrow.compute` (`to_series`).
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return to_series(column).cast(pl.String)
    is_label = name in schema.columns.get("label", ())
    if pa.types.is_integer(column.type) and (is_label or name == schema.id_column):
        if is_label and schema.label_names is not None:
            return None
        return to_series(column).cast(pl.String)
    return None


def _is_empty_list(column: pa.ChunkedArray) -> pl.Series:
    series = to_series(column)
    if isinstance(series.dtype, pl.List):
        return (series.list.len() == 0).fill_null(value=True)
    if series.dtype == pl.String:
        return (series.str.strip_chars(WHITE_SPACE) == "").fill_null(value=True)
    return series.is_null()


def _has_no_tools(column: pa.ChunkedArray) -> pl.Series:
    series = to_series(column)
    if series.dtype == pl.String:
        return ~series.str.strip_chars_start(WHITE_SPACE).str.starts_with("[").fill_null(value=False)
    return _is_empty_list(column)


def _is_filled(column: pl.Expr) -> pl.Expr:
    return (column.str.strip_chars(WHITE_SPACE) != "").fill_null(value=False)


def _join_columns(names: Sequence[str]) -> pl.Expr:
    """Return the columns joined by line feeds without the blank ones; "" where all are blank."""
    parts = [pl.when(_is_filled(pl.col(name))).then(pl.col(name)) for name in names]
    return pl.concat_str(parts, separator="\n", ignore_nulls=True)
