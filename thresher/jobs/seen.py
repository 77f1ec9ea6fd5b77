"""The rows that were ever judged, by 16-byte name: segments, one per version, that snapshots list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.jobs.folder import name_of
from thresher.output import write_whole

ID_BYTES = 16
ID_DIGITS = 2 * ID_BYTES  # of the hexadecimal row id, before the number of a repeat
Names = NDArray[np.bytes_]


def names(row_ids: pl.Series) -> Names:
    """Return the (n,) S16 names of rows by content: a row id without the number of a repeat.

    A NUL at the end of a name is lost in this type, for all names alike, so that equal names stay equal.
    """
    joined = bytes.fromhex("".join(row_ids.str.slice(0, ID_DIGITS).to_list()))
    return np.frombuffer(joined, dtype=f"S{ID_BYTES}")


def write_segment(folder: Path, version: int, fresh: Names) -> dict[str, Any]:
    """Write the names that a version judged first, and return its entry for the manifest."""
    content = np.sort(fresh).tobytes()
    write_whole(folder / f"{name_of(version)}.ids", content)
    return {"version": version, "rows": len(fresh), "sha256": hashlib.sha256(content).hexdigest()}


def read_segments(folder: Path, entries: Iterable[Mapping[str, Any]]) -> tuple[Names, list[str]]:
    """Return all names of some segments, sorted, and a sentence for each segment that is gone or damaged."""
    parts, problems = [], []
    for entry in entries:
        path = folder / f"{name_of(entry['version'])}.ids"
        try:
            content = path.read_bytes()
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror}); its {entry['rows']} rows count as new again")
            continue
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            problems.append(f"{path}: is damaged; its {entry['rows']} rows count as new again")
            continue
        parts.append(np.frombuffer(content, dtype=f"S{ID_BYTES}"))
    return np.unique(np.concatenate([np.zeros(0, f"S{ID_BYTES}"), *parts])), problems


def delete_others(folder: Path, listed: Sequence[Mapping[str, Any]], newest: int) -> None:
    """Delete segments of killed runs: newer than the newest snapshot and in no snapshot's list."""
    known = {entry["version"] for entry in listed}
    for path in folder.glob("v*.ids"):
        version = int(path.stem[1:]) if path.stem[1:].isdecimal() else 0
        if version > newest and version not in known:
            os.unlink(path)


def is_in(wanted: Names, known: Names) -> NDArray[np.bool_]:
    """Tell for each name whether it is among the known ones, which are sorted."""
    if not len(known):
        return np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found: NDArray[np.bool_] = known[at] == wanted
    return found
