"""Columns that a recognized schema leaves out and that may belong to it: only the user can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thresher.dataset.schema import LABELS, Schema, count_columns
from thresher.errors import InputError

_TARGETS = frozenset(
    {
        *("target", "targets", "y", "sentiment", "polarity", "emotion", "gold", "gold_label", "annotation"),
        *("label_text", "label_name", "label_id", "class_label", "class_name", "class_id", "is_spam", "spam", "toxic"),
        *("choice", "toxicity", "stance", "sarcasm", "is_toxic"),
        *LABELS,
    }
)
_ANSWERS = frozenset(
    {
        *("summary", "highlights", "abstract", "translation", "target_text", "target_scores", "reply", "paraphrase"),
        *("response", "completion", "output", "answer", "answers", "simplified", "correction", "question"),
    }
)
_SPANS = frozenset({"entities", "spans", "ner_tags", "ner", "tags", "relations", "annotations", "role"})
_CONTEXTS = frozenset(
    {
        *("context", "contexts", "passage", "passages", "article", "document", "documents", "paragraph", "story"),
        *("options", "choices", "input", "inputs", "table", "background", "evidence", "knowledge", "hypothesis"),
    }
)
_BEHIND = frozenset({"input", "inputs", "options", "choices", "hypothesis"})  # of prompts
_FEW = 8  # rows in which any column has as many values as rows
_ONE_HOT = 3  # columns of 0 and 1 that are one label for each


def ask_about_columns(rows: Sequence[Mapping[str, Any]], schema: Schema, *, where: str) -> None:
    """Refuse to leave out a column that likely belongs to what is learned.

    Beside plain text that is a label, an answer, or what marks spans of the text; beside the label
    of a text, an answer; beside question and answer, a passage or options that the question does
    not repeat.

    Args:
        rows: up to some hundred good rows.
        schema: that was recognized.
        where: name of the file, for messages.

    Raises:
        InputError: only the user can tell what the column is.
    """
    read = set(schema.column_names)
    rows = [row for row in rows if any(row.get(name) for name in read)]
    for name in count_columns(rows):
        filled = [row for row in rows if row.get(name) not in (None, "", [], {})]
        if name in read or 2 * len(filled) < len(rows) or not filled:
            continue
        sentence = _describe_guess(name, filled, schema)
        if sentence:
            raise InputError(f"{where}: {sentence}, or --schema {schema.name} to leave it out")
    if schema.name == "text" and len(flags := _list_flags(rows, read)) >= _ONE_HOT:
        raise InputError(
            f"{where}: {len(flags)} columns of 0 and 1 beside 'text' ({', '.join(flags[:3])}, ...) may be its labels; "
            f"give --map text=text,label={flags[0]} to learn one of them, or --schema text to learn "
            "the text"
        )


def _describe_guess(name: str, filled: Sequence[Mapping[str, Any]], schema: Schema) -> str:
    """Say what an unread column may be, and how to read it; "" for one that is likely nothing."""
    word = name.casefold()
    if schema.name == "text":
        may_be_label = len({str(row[name]) for row in filled}) < len(filled) or len(filled) < _FEW
        column = f"column '{name}' beside 'text'"
        if word in _TARGETS and may_be_label:
            return f"{column} may be its label; give --map text=text,label={name} to learn the label"
        if word in _ANSWERS:
            return f"{column} may be the answer; give --map prompt=text,response={name} to learn it"
        if word in _SPANS:
            return f"{column} may be part of what is to be learned; give a --map of the columns to read"
    if schema.name == "text-label" and schema.columns["label"][0] not in ("label", "labels") and word in _ANSWERS:
        text, label = schema.columns["text"], schema.columns["label"][0]
        return (
            f"column '{name}' beside the label '{label}' may be the answer; give "
            f"--map prompt={'+'.join(text)},response={name} to learn it"
        )
    if "prompt" in schema.columns and word in _CONTEXTS and not _is_repeated(name, filled, schema):
        prompt = [each for each in schema.columns["prompt"] if any(each in row for row in filled)]
        joined = [*prompt, name] if word in _BEHIND else [name, *prompt]
        columns = f"prompt={'+'.join(joined)},response={schema.columns['response'][0]}"
        is_text = all(isinstance(row[name], str) for row in filled)
        how = f"give --map {columns} to read it" if is_text else "write it into the prompt to read it"
        return f"column '{name}' beside '{prompt[-1]}' may belong to the prompt; {how}"
    return ""


def _is_repeated(name: str, filled: Sequence[Mapping[str, Any]], schema: Schema) -> bool:
    """Tell whether the prompts of most rows hold what a column says."""
    n = 0
    for row in filled:
        prompt = "\n".join(str(row[each]) for each in schema.columns["prompt"] if row.get(each) is not None)
        value = row[name]
        parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        n += all(str(part).strip() in prompt for part in parts)
    return 2 * n >= len(filled)


def _list_flags(rows: Sequence[Mapping[str, Any]], read: set[str]) -> list[str]:
    """Return the columns that hold nothing but 0 and 1, and both of them."""
    values = {name: {str(row.get(name)).casefold() for row in rows} for name in count_columns(rows) if name not in read}
    return [name for name, own in values.items() if own in ({"0", "1"}, {"false", "true"}, {"0.0", "1.0"})]
