"""Copying rows of the user's files into one new file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np

from thresher.dataset.formats.files import find_runs, open_compressed
from thresher.dataset.formats.shard import Shard
from thresher.dataset.values.class_names import decode_rows
from thresher.errors import InputError
from thresher.numeric.arrays import Int32, Int64

_PARSED_ROWS = 4096


def write_rows(
    shards: Sequence[Shard], shard: Int32, position: Int64, folder: Path, stem: str, decoded: frozenset[str]
) -> Path:
    """Write rows in the given order; returns the path.

    Args:
        shards: the user's files.
        shard: (n,) which file each row is in.
        position: (n,) where it is there.
        folder: an existing folder.
        stem: name of the new file, without the suffix.
        decoded: columns in which names of classes stand for their numbers, in parsed copies.

    Raises:
        InputError: a file changed since it was read.
    """
    used = [shards[number] for number in (np.unique(shard).tolist() or [0])]
    for one in used:
        one.source.check_unchanged()
    if len({(one.suffix, one.layout) for one in used}) == 1:
        path = folder / f"{stem}{used[0].suffix}"
        with used[0].open_copy(path) as copy_rows:
            for start, stop in find_runs(shard):
                copy_rows(shards[shard[start]], position[start:stop])
    else:
        path = folder / f"{stem}.jsonl"
        _write_parsed(shards, shard, position, path, decoded)
    for one in used:
        one.source.check_unchanged()
    return path


def _write_parsed(shards: Sequence[Shard], shard: Int32, position: Int64, path: Path, decoded: frozenset[str]) -> None:
    with open_compressed(path, "") as write:
        for start, stop in find_runs(shard):
            for low in range(start, stop, _PARSED_ROWS):
                one = shards[shard[start]]
                rows = decode_rows(one.rows(position[low : min(low + _PARSED_ROWS, stop)]), one.label_names, decoded)
                write(b"".join(encode_line(row) for row in rows))


def _encode_value(value: Any) -> str:
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")


def encode_line(row: dict[str, Any]) -> bytes:
    """Return a row as a line of JSON.

    Raises:
        InputError: it holds what JSON cannot.
    """
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_encode_value).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InputError(
            f"files of different formats are written as JSON lines, and a row cannot be ({error}); "
            "convert the files to one format"
        ) from None
