"""What a user should know of rows that were read: sentences for summaries and manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from thresher.dataset.formats.shard import Shard
from thresher.dataset.rejection import NOT_UTF8, count_values
from thresher.dataset.schema import Schema
from thresher.dataset.values.labels import find_joined_labels, find_similar_labels
from thresher.dataset.values.marks import parse_mark
from thresher.dataset.values.watched import GRADES, PARTS, RATINGS, SPLITS, ColumnValues
from thresher.errors import first_three
from thresher.numeric.units import format_count

if TYPE_CHECKING:
    from thresher.dataset.dataset import Dataset

_UNREAD = (
    "column '{}' is not empty but not read, so answers about its content would be learned from the text alone; "
    "leave out these rows, or the column if the answers do not need it"
)
_HELD_OUT = frozenset({"test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation", "holdout"})
_SHOWN = 3  # groups of labels in a sentence
MOST_CLASSES = 10_000  # more labels than that are no classes to compare


def list_notes(
    file_notes: Iterable[str],
    n_per_label: Mapping[str, int],
    n_per_reason: Mapping[str, int],
    empty: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return a sentence for each thing that is likely not as the user means it.

    Args:
        file_notes: notes of the files.
        n_per_label: of the rows; empty where they have no labels.
        n_per_reason: of the rows that cannot be used.
        empty: names of files without rows, beside others.
    """
    return (
        *_describe_empty_files(empty),
        *_describe_encoding(n_per_reason.get(NOT_UTF8, 0)),
        *list_label_notes(n_per_label),
        *dict.fromkeys(file_notes),
    )


def list_file_notes(shard: Shard, schema: Schema, columns: Mapping[str, ColumnValues]) -> list[str]:
    """Return the notes of one file, and what its rows hold that is not read.

    Args:
        shard: the file.
        schema: by which it was read.
        columns: those of its columns that were watched and not read.
    """
    notes = list(shard.notes)
    for name, values in columns.items():
        folded = name.casefold()
        if folded in PARTS and values.counts:
            notes.append(_UNREAD.format(name))
        elif folded in RATINGS and values.counts:
            notes.append(f"column '{name}' is not learned; to learn it as a label give --map text=text,label={name}")
        elif folded in GRADES and schema.wanted is None:
            notes += _describe_grades(name, values)
        elif folded in SPLITS:
            notes += _describe_splits(name, values)
    return notes


def _describe_grades(name: str, values: ColumnValues) -> list[str]:
    """Say how many answers a column calls wrong, where all it holds is true and false."""
    marks = {kind: parse_mark(value) for kind, value in values.examples.items()}
    n_wrong = sum(values.counts[kind] for kind, mark in marks.items() if mark is False)
    if not n_wrong or None in marks.values():
        return []
    return [
        f"column '{name}' is false in {n_wrong:,} rows, whose answers are read like the others; to leave them "
        f"out, give --wanted {name}"
    ]


def _describe_splits(name: str, values: ColumnValues) -> list[str]:
    """Say that rows to train on and rows to measure on stand in one file."""
    counts = {value: values.counts[kind] for kind, value in values.examples.items() if isinstance(value, str)}
    held_out = {value: n for value, n in counts.items() if value.strip().casefold() in _HELD_OUT}
    if not held_out or not any(value.strip().casefold().startswith("train") for value in counts):
        return []
    shown = " and ".join(f"'{value}' ({n:,})" for value, n in held_out.items())
    return [
        f"column '{name}' marks rows as {shown}, and they were read with the training rows; keep only those with: "
        f"thresher curate clean FILE --rules expression --set \"expression.where={name} = 'train'\""
    ]


def _describe_empty_files(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    n_files = "1 file is empty and was" if len(names) == 1 else f"{len(names):,} files are empty and were"
    return [f"{n_files} skipped: {first_three(names)}"]


def count_labels(rows: Dataset) -> dict[str, int]:
    """Return how often each label occurs; nothing for rows without classes."""
    if rows.kind != "classification" or rows.frame["response"].n_unique() > MOST_CLASSES:
        return {}
    return count_values(rows.frame["response"])


def list_label_notes(counts: Mapping[str, int]) -> list[str]:
    """Return sentences on labels that look alike or are withheld, from how often each occurs."""
    if set(counts) == {"-1"}:
        return ["all labels are -1, which Hub data sets use for withheld labels; these rows have no labels"]
    notes = _describe_joined(counts)
    groups = find_similar_labels(counts)
    if not groups:
        return notes
    shown = "; ".join(" and ".join(f"'{label}' ({counts[label]:,})" for label in group) for group in groups[:_SHOWN])
    more = f"; and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    return [*notes, f"labels that look alike are read as different classes: {shown}{more}; write each class one way"]


def _describe_joined(counts: Mapping[str, int]) -> list[str]:
    """Return a sentence on labels that seem to be several in one text, as "red, large"."""
    joined = find_joined_labels(counts)
    if not joined:
        return []
    n_rows = sum(counts[label] for label in joined)
    return [
        f"{format_count(n_rows, 'row')} seem to have several labels, such as '{joined[0]}': each combination counts as "
        f"a class of its own; for several labels per row, make a column of yes and no per label, and run once for each"
    ]


def _describe_encoding(n: int) -> list[str]:
    if not n:
        return []
    return [
        f"{n:,} rows are not UTF-8 and were rejected; if they are Windows text, convert them: "
        "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
    ]
