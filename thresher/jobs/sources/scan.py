"""What is at the sources now: which files there are, and which of them hold something new."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import write_atomic
from thresher.dataset.sources import FileToRead, find_files
from thresher.errors import InputError
from thresher.jobs.job_file import Job

SCAN_FILE = "scan.json"
_HASH_BYTES = 4 << 20
_SETTLE_NS = (
    2_000_000_000  # a file changed this shortly before it was hashed may have changed again at the same time stamp
)


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of a source.

    Attributes:
        source: name of the source.
        name: path from the folder of the job file where possible, with slashes: the same on every
            machine.
        file: how to read it.
        bytes: its size.
        sha256: of its bytes.
    """

    source: str
    name: str
    file: FileToRead
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Files of all sources.

    Attributes:
        fresh: files whose content no snapshot has seen.
        known: files whose content the snapshot has seen.
        too_old: names of files that changed last before `since`.
        gone: names of files in the ledger that are not there any more.
        skipped: files that are left to the next run: those that may still be written, and those
            that cannot be read, where the job skips such: (name, why).
        notes: what was odd, in sentences.
    """

    fresh: tuple[SourceFile, ...]
    known: tuple[SourceFile, ...]
    too_old: tuple[str, ...]
    gone: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


def scan(
    job: Job,
    ledger: Iterable[dict[str, Any]],
    *,
    known_hashes: Collection[str],
    since: datetime | None,
    cache: HashCache,
) -> Scan:
    """Look at the files of all sources; a file is new when no file of its content was read before.

    Args:
        job: its `files` sources are looked at.
        ledger: `name` and `sha256` of the files that the snapshot was made from.
        known_hashes: contents that need not be read again.
        since: files that changed last before it are passed over.
        cache: of hashes.

    Raises:
        InputError: a named file is not there, or of an unknown kind.
    """
    notes: list[str] = []
    fresh: list[SourceFile] = []
    known: list[SourceFile] = []
    too_old: list[str] = []
    skipped: list[tuple[str, str]] = []
    taken: set[str] = set()
    output = os.path.realpath(job.folder)
    for number, source in enumerate(job.settings.sources):
        for file in _files(job, source.files or (), notes):
            place = os.path.realpath(file.path)
            if place in taken or Path(place).is_relative_to(output):
                continue  # named twice, or our own snapshots below a glob
            taken.add(place)
            name = relative_path(file.path, job.base)
            try:
                if since is not None and _changed_before(file.path, since):
                    too_old.append(name)
                    continue
                if _changed_within(file.path, job.settings.rows.settle_s):
                    skipped.append((name, "it changed just now, and may still be written ([rows] settle_s)"))
                    continue
                size, sha256 = cache.hash_file(file.path)
            except InputError as error:
                if job.settings.rows.unreadable != "skip":
                    raise
                skipped.append((name, str(error)))
                continue
            found = SourceFile(source=job.source_name(number), name=name, file=file, bytes=size, sha256=sha256)
            (known if sha256 in known_hashes else fresh).append(found)
    there = {found.name for found in (*fresh, *known)} | set(too_old) | {name for name, _ in skipped}
    gone = tuple(entry["name"] for entry in ledger if entry.get("kind") == "file" and entry["name"] not in there)
    return Scan(
        fresh=tuple(fresh),
        known=tuple(known),
        too_old=tuple(too_old),
        gone=gone,
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _files(job: Job, names: Iterable[str], notes: list[str]) -> list[FileToRead]:
    found: list[FileToRead] = []
    for one in names:
        path = job.place(one)
        if glob.has_magic(one) and not path.exists():
            named = sorted(glob.glob(job.pattern(one), recursive=True))
            matches = [Path(match) for match in named if Path(match).is_file()]
            if not matches:
                notes.append(f"{one}: no file matches this pattern")
                continue
            output = os.path.realpath(job.folder)
            matches = [match for match in matches if not Path(os.path.realpath(match)).is_relative_to(output)]
            found += find_files(matches, split=None, skip_links=True) if matches else []
        elif path.is_dir() and not any(path.iterdir()):
            notes.append(f"{one}: the folder is empty")
        else:
            found += find_files(path, split=None, skip_links=True)
    return found


def _changed_before(path: Path, since: datetime) -> bool:
    """Tell whether a file changed last before a time; its time stamp may be one that no date can hold.

    Raises:
        InputError: the file is gone, or its folder cannot be looked into.
    """
    try:
        return path.stat().st_mtime < since.timestamp()
    except OSError as error:
        raise InputError(f"{path}: the file must be readable, got '{error.strerror}'; run again") from None


def _changed_within(path: Path, settle_s: float) -> bool:
    """Tell whether a file changed less than so long ago; one whose time is to come did not: clocks differ.

    Raises:
        InputError: the file is gone, or its folder cannot be looked into.
    """
    if not settle_s:
        return False
    try:
        return 0 <= time.time() - path.stat().st_mtime < settle_s
    except OSError as error:
        raise InputError(f"{path}: the file must be readable, got '{error.strerror}'; run again") from None


def relative_path(path: Path, base: Path) -> str:
    """Return a path from the base where it lies below it, with slashes."""
    absolute = Path(os.path.abspath(path))
    root = Path(os.path.abspath(base))
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


class HashCache:
    """Hashes of files by size and times, so that an old pool is not read every night. It may be lost at any moment.

    Args:
        folder: where it is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / SCAN_FILE
        self._used: dict[str, list[Any]] = {}
        self._spent: dict[str, int] = {}
        content = {} if self._path is None else _read(self._path)
        self._entries = content.get("files", {})
        self._spent = {key: at for key, at in content.get("spent", {}).items() if isinstance(at, int)}

    def hash_file(self, path: Path) -> tuple[int, str]:
        """Return size and sha256 of a file, read only when its size or one of its times is another.

        Raises:
            InputError: the file cannot be read.
        """
        place = os.path.realpath(path)
        try:
            before = os.stat(place)
            stamp = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
            entry = self._entries.get(place)
            kept = entry[1] if isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp else None
            sha256 = kept if isinstance(kept, str) else _sha256(place)
        except OSError as error:
            raise InputError(
                f"{path}: the file must be readable, got '{error.strerror}'; check the path and its rights"
            ) from None
        age = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns)
        if sha256 == kept or age > _SETTLE_NS:
            self._used[place] = [stamp, sha256]
        return before.st_size, sha256

    def spent(self, lineage: Collection[int]) -> set[str]:
        """Return the contents of files whose rows were all known to a version that the snapshot stems from."""
        return {sha256 for sha256, version in self._spent.items() if version in lineage}

    def spend(self, hashes: Iterable[str], version: int) -> None:
        """Note that a version knows all rows of these contents."""
        self._spent |= dict.fromkeys(hashes, version)

    def save(self) -> None:
        """Keep the hashes that were used; that they cannot be kept costs time in the next run, nothing else."""
        if self._path is not None:
            with suppress(OSError):
                write_atomic(self._path, json.dumps({"files": self._used, "spent": self._spent}).encode())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return what was kept, or nothing when it is gone, damaged, or not ours."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(content, dict) and all(isinstance(part, dict) for part in content.values())
    return content if is_ours else {}


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256", _bufsize=_HASH_BYTES).hexdigest()
