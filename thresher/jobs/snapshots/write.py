"""Writing a snapshot: every file of it, the manifest last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from thresher.artifacts.disk_errors import naming_path
from thresher.artifacts.folder import MANIFEST, write_array, write_ndjson, write_parquet
from thresher.artifacts.manifest import Manifest
from thresher.dataset import Schema
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots import exports
from thresher.jobs.snapshots.card import build_card
from thresher.jobs.snapshots.read import DATA, DROPPED, TOPICS
from thresher.jobs.snapshots.unreadable import AXOLOTL, LLAMA_FACTORY, find_unreadable


def write_snapshot(
    folder: Path,
    job: Job,
    *,
    table: pa.Table,
    dropped: pl.DataFrame,
    rejected: pl.DataFrame,
    schema: Schema,
    topics: NDArray[np.float32] | None,
    documents: Mapping[str, Any],
    content: Mapping[str, Any],
) -> None:
    """Write a snapshot into an empty folder; `documents` are its JSON files, by name."""
    files = _write_shards(folder / DATA, table, job.settings.output.shard_rows)
    write_parquet(dropped, folder / DROPPED)
    if rejected.height:
        write_ndjson(rejected, folder / "rejected.jsonl")
    if topics is not None:
        write_array(topics, folder / TOPICS)
    schema = exports.drop_absent_columns(schema, table.column_names)
    tags = exports.find_chat_tags(table, schema)
    unreadable = find_unreadable(table, schema, tags)
    contents = {name: _to_json(document) for name, document in documents.items()} | {
        "README.md": build_card(job.name, job.settings.output, content, unreadable),
        "trl.py": exports.build_trl(schema, tags),
    }
    entries = {
        LLAMA_FACTORY: exports.build_llama_factory(job.name, schema, tags),
        AXOLOTL: exports.build_axolotl(schema, tags),
    }
    contents |= {name: entry for name, entry in entries.items() if name not in unreadable}
    for name, data in contents.items():
        _write(folder / name, data)
    hashes = {path.name: _hash_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    _write(folder / MANIFEST, Manifest({**content, "files": files, "hashes": hashes}).to_json())


def _write(path: Path, data: bytes) -> None:
    with naming_path(path):
        path.write_bytes(data)


def _write_shards(folder: Path, table: pa.Table, shard_rows: int) -> list[dict[str, Any]]:
    """Write the rows in shards of equal size, and return name, rows and hash of each."""
    folder.mkdir()
    n_shards = max(1, -(-table.num_rows // shard_rows))
    entries = []
    for number in range(n_shards):
        part = table.slice(number * shard_rows, shard_rows)
        path = folder / f"rows-{number + 1:05d}-of-{n_shards:05d}.parquet"
        write_parquet(part, path)
        entries.append({"name": path.name, "rows": part.num_rows, "sha256": _hash_file(path)})
    return entries


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
