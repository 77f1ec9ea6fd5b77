"""Stages: work done shard by shard, each shard whole or not at all."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from thresher.artifacts.folder import atomic_file
from thresher.artifacts.manifest import versions
from thresher.artifacts.seal import find_damage, hash_file, read_record, seal_record
from thresher.errors import InputError, OutputError

Record = dict[str, Any]
FILES = "files"  # entry of what a work returns: the files it wrote, for which the record vouches


class Work(Protocol):
    """What a stage does with one of its shards. It is sent to other processes, so it is small.

    Attributes:
        name: of the stage, for progress.
        folder: where its files and records lie, on storage that all nodes see; its name holds what
            determines them.
        memory_bytes: that one shard may take, so that a node is not given more at once than it can
            hold.
    """

    @property
    def name(self) -> str:
        """Name of the stage."""

    @property
    def folder(self) -> Path:
        """Where its files and records lie."""

    @property
    def memory_bytes(self) -> int:
        """Memory that one shard may take."""

    def __call__(self, number: int) -> Record:
        """Do one shard: write its files, and return what the driver needs, in JSON values.

        The entry `FILES` of what it returns are the paths of those files, if there are any.
        """


@runtime_checkable
class ModelWork(Work, Protocol):
    """Work that may need a model, which is loaded once by each process that does it."""

    @property
    def has_model(self) -> bool:
        """Whether it does."""

    @property
    def can_use_gpu(self) -> bool:
        """Whether that model would run on a GPU."""

    def load_models(self) -> object:
        """Return what must stay in memory between shards so that the model is not loaded again."""


def shard_name(number: int) -> str:
    """Return the name of a shard in file names, which sort as the numbers do."""
    return f"{number:05d}"


def record_path(folder: Path, number: int) -> Path:
    """Return where the record of a shard lies: the shard is done when it is there."""
    return folder / f"{shard_name(number)}.json"


def run_shard(work: Work, number: int) -> Record:
    """Do one shard and write its record with the checksums of its files, the last of them.

    Raises:
        OutputError: the driver has made the folder of the stage, and it is not seen here.
    """
    started = time.monotonic()
    if not work.folder.is_dir():
        raise OutputError(
            f"{work.folder}: must be seen by every node under this path, and {socket.gethostname()} does not see it; "
            f"choose --out on storage that all nodes share"
        )
    facts = work(number)
    checksums = {os.path.relpath(path, work.folder): hash_file(path) for path in facts.pop(FILES, ())}
    record = {
        **facts,
        "number": number,
        "seconds": round(time.monotonic() - started, 4),
        "host": socket.gethostname(),
        "thresher": versions(()),
    }
    with atomic_file(record_path(work.folder, number)) as path:
        path.write_text(json.dumps(seal_record(record, checksums)))
    return record


def load_record(folder: Path, number: int) -> tuple[Record | None, str | None]:
    """Return the record of a shard that this version of thresher has done, and what is damaged.

    Both are None where it is not done. Where it, or a file that it vouches for, is not as it was
    written, the record is None.

    Raises:
        OSError: the storage is away for a time.
    """
    path = record_path(folder, number)
    if not path.exists():
        return None, None
    damage = find_damage(folder, path.name)
    if damage is not None:
        return None, damage
    record = read_record(path)
    return (record if record.get("thresher") == versions(()) else None), None


def check_version(record: Record) -> None:
    """Refuse the work of a node that has another version of thresher.

    Raises:
        InputError: it has.
    """
    if record["thresher"] != versions(()):
        theirs, ours = record["thresher"].get("thresher"), versions(()).get("thresher")
        raise InputError(
            f"{record['host']}: must have thresher {ours}, as this machine has, found {theirs}; install one version on "
            f"all nodes"
        )
