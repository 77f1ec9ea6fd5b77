"""What a user should know of rows that were read: sentences for summaries and manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from thresher.dataset.formats.shard import Shard, sample_rows
from thresher.dataset.rejection import NOT_UTF8, count_values
from thresher.dataset.schema import Schema
from thresher.dataset.values.labels import find_similar_labels
from thresher.errors import first_three

if TYPE_CHECKING:
    from thresher.dataset.dataset import Dataset

_PARTS = frozenset({"image", "images", "video", "videos", "audio", "audios", "image_path", "image_paths"})
_UNREAD = (
    "column '{}' is filled and not read: answers about what it holds would be learned from the text alone; "
    "leave out these rows, or the column if the answers do not need it"
)
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
        *_describe_similar_labels(n_per_label),
        *dict.fromkeys(file_notes),
    )


def list_file_notes(shard: Shard, schema: Schema) -> list[str]:
    """Return the notes of one file, and what its rows hold that is not read."""
    names = [name for name in shard.column_names if name.casefold() in _PARTS and name not in schema.column_names]
    if not names or schema.kind == "classification":
        return list(shard.notes)
    rows = sample_rows(shard)
    filled = [name for name in names if any(row.get(name) for row in rows)]
    return [*shard.notes, *(_UNREAD.format(name) for name in filled)]


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


def _describe_similar_labels(counts: Mapping[str, int]) -> list[str]:
    groups = find_similar_labels(counts)
    if not groups:
        return []
    shown = "; ".join(" and ".join(f"'{label}' ({counts[label]:,})" for label in group) for group in groups[:_SHOWN])
    more = f"; and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    return [f"labels that look alike are read as different classes: {shown}{more}; write each class one way"]


def _describe_encoding(n: int) -> list[str]:
    if not n:
        return []
    return [
        f"{n:,} rows are not UTF-8 and were rejected; if they are Windows text, convert them: "
        "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
    ]
