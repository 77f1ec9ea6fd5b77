"""The rows that were ever evaluated, by 16-byte id: a segment per version, listed by snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.folder import sync, write_atomic
from thresher.jobs.snapshots.folder import format_version

ID_BYTES = 16
ID_DIGITS = 2 * ID_BYTES  # of the hexadecimal row id, before the number of a repeat
PackedIds = NDArray[np.bytes_]


def pack_row_ids(row_ids: pl.Series) -> PackedIds:
    """Return the (n,) S16 ids of rows by content: a row id without the number of a repeat.

    A NUL at the end of an id is lost in this type, for all ids alike: equal ids stay equal.
    """
    joined = bytes.fromhex("".join(row_ids.str.slice(0, ID_DIGITS).to_list()))
    return np.frombuffer(joined, dtype=f"S{ID_BYTES}")


def write_segment(folder: Path, version: int, fresh: PackedIds) -> dict[str, Any]:
    """Write the ids that a version evaluated first, and return its entry for the manifest.

    The file is named by its content too: a run that has lost its lock cannot write over that of
    the next one.
    """
    content = np.sort(fresh).tobytes()
    entry = {"version": version, "rows": len(fresh), "sha256": hashlib.sha256(content).hexdigest()}
    write_atomic(folder / _name_file(entry), content)
    sync(folder)  # the snapshot that lists it must not outlive it
    return entry


def _name_file(entry: Mapping[str, Any]) -> str:
    return f"{format_version(entry['version'])}-{entry['sha256'][:12]}.ids"


def read_segments(folder: Path, entries: Iterable[Mapping[str, Any]]) -> tuple[PackedIds, list[str]]:
    """Return all ids of some segments, sorted, and a sentence for each that is gone or damaged."""
    parts, problems = [], []
    for entry in entries:
        path = folder / _name_file(entry)
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # a share that is away is an error: it says nothing of the rows
            problems.append(f"{path}: is gone; its {entry['rows']} rows count as new again")
            continue
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            problems.append(f"{path}: is damaged; its {entry['rows']} rows count as new again")
            continue
        parts.append(np.frombuffer(content, dtype=f"S{ID_BYTES}"))
    return np.unique(np.concatenate([np.zeros(0, f"S{ID_BYTES}"), *parts])), problems


def delete_unlisted_segments(folder: Path, listed: Iterable[Mapping[str, Any]], *, before: int) -> None:
    """Delete the segments that no snapshot lists: of killed runs, and of snapshots that are gone.

    Args:
        folder: of the segments.
        listed: entries of all snapshots.
        before: only of lower versions. Who has lost the lock and does not know yet must not delete
            what the next run has written for a snapshot that is still in its work folder.
    """
    known = {_name_file(entry) for entry in listed}
    for path in folder.glob("v*.ids"):
        number = path.name[1:].partition("-")[0]
        if path.name not in known and number.isdecimal() and int(number) < before:
            path.unlink(missing_ok=True)


def mask_known(ids: PackedIds, known: PackedIds) -> NDArray[np.bool_]:
    """Return for each id whether it is among the known ones, which are sorted."""
    if not len(known):
        return np.zeros(len(ids), np.bool_)
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    is_known: NDArray[np.bool_] = known[at] == ids
    return is_known
