"""What is at the sources now: which files there are, and which of them are new."""

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
from thresher.artifacts.remote.address import Address, is_address, parse_address
from thresher.artifacts.remote.fetch import fetch
from thresher.artifacts.remote.places import find_address, find_place
from thresher.artifacts.seal import read_record, seal_record
from thresher.dataset.sources import FileToRead, find_files
from thresher.errors import InputError, ManifestError
from thresher.jobs.job_file import Job
from thresher.jobs.settings import Source

SCAN_FILE = "scan.json"
_HASH_BYTES = 4 << 20
# A file that changed this shortly before it was hashed may change again under the same time stamp.
_SETTLE_NS = 2_000_000_000


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
        known_hashes: sha256 of contents that need not be read again.
        new_files: files of other contents.
        known_files: files of known contents.
        too_old: names of files that were last modified before `since`.
        gone: names of files in the ledger that are not there any more.
        skipped: files that are left to the next run, since they may still be written, or cannot be
            read where the job skips such: (name, why).
        notes: what was odd, in sentences.
    """

    known_hashes: frozenset[str]
    new_files: list[SourceFile] = field(default_factory=list)
    known_files: list[SourceFile] = field(default_factory=list)
    too_old: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def scan_sources(
    job: Job,
    ledger: Iterable[dict[str, Any]],
    *,
    known_hashes: Collection[str],
    since: datetime | None,
    cache: HashCache,
) -> Scan:
    """Look at the files of all sources; a file is new when no file of its content was read before.

    Raises:
        InputError: a named file is not there, or of an unknown kind.
    """
    scan = Scan(known_hashes=frozenset(known_hashes))
    seen: set[str] = set()
    output = os.path.realpath(job.output_folder if job.output_address is None else find_place(job.output_address))
    for number, source in enumerate(job.settings.sources):
        for file in _find_source_files(job, source, output, scan.notes):
            place = os.path.realpath(file.path)
            if place in seen or Path(place).is_relative_to(output):
                continue  # named twice, or our own snapshots below a glob
            seen.add(place)
            name = relative_path(file.path, job.base)
            try:
                modified = _read_modified(file.path) if since is not None or job.settings.rows.settle_s else 0.0
                if since is not None and modified < since.timestamp():
                    scan.too_old.append(name)
                    continue
                # A time in the future is no recent change: the clocks of two machines differ.
                if 0 <= time.time() - modified < job.settings.rows.settle_s:
                    scan.skipped.append(
                        (name, "it was modified just now, and may still be in progress ([rows] settle_s)")
                    )
                    continue
                size, sha256 = cache.hash_file(file.path)
            except InputError as error:
                if job.settings.rows.unreadable != "skip":
                    raise
                scan.skipped.append((name, str(error)))
                continue
            one = SourceFile(source=job.source_name(number), name=name, file=file, bytes=size, sha256=sha256)
            (scan.known_files if sha256 in scan.known_hashes else scan.new_files).append(one)
    there = {one.name for one in (*scan.new_files, *scan.known_files)}
    there |= {*scan.too_old, *(name for name, _ in scan.skipped)}
    scan.gone.extend(entry["name"] for entry in ledger if entry.get("kind") == "file" and entry["name"] not in there)
    return scan


def _find_source_files(job: Job, source: Source, output: str, notes: list[str]) -> list[FileToRead]:
    files: list[FileToRead] = []
    for name in source.files or ():
        if is_address(name):
            files += _find_remote_files(parse_address(name), source, output, notes)
            continue
        path = job.resolve_path(name)
        if glob.has_magic(name) and not path.exists():
            found = sorted(glob.glob(job.resolve_pattern(name), recursive=True))
            matches = [Path(match) for match in found if Path(match).is_file()]
            if not matches:
                notes.append(f"{name}: no file matches this pattern")
                continue
            matches = [match for match in matches if not Path(os.path.realpath(match)).is_relative_to(output)]
            files += find_files(matches, split=None, skip_links=True) if matches else []
        elif path.is_dir() and not any(path.iterdir()):
            notes.append(f"{name}: the folder is empty")
        else:
            files += find_files(path, split=source.split, skip_links=True)
    return files


def _find_remote_files(address: Address, source: Source, output: str, notes: list[str]) -> list[FileToRead]:
    """Return copies of the files at an address, which stay where they are while nothing changes."""
    copies = fetch(address, may_match_nothing=True)
    if not address.has_magic:
        return find_files(copies, split=source.split)
    matches = [Path(match) for match in sorted(glob.glob(str(copies), recursive=True)) if Path(match).is_file()]
    matches = [match for match in matches if not Path(os.path.realpath(match)).is_relative_to(output)]
    if not matches:
        notes.append(f"{address}: no file matches this pattern")
    return find_files(matches, split=None) if matches else []


def _read_modified(path: Path) -> float:
    """Return when a file was last modified, in seconds: a number, since no date may hold it.

    Raises:
        InputError: the file is gone, or its folder cannot be looked into.
    """
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise InputError(f"{path}: the file must be readable, got '{error.strerror}'; run again") from None


def relative_path(path: Path, base: Path) -> str:
    """Return a path from the base where it lies below it, with slashes; or its address."""
    address = find_address(path)
    if address is not None:
        return str(address)
    absolute = Path(os.path.abspath(path))
    root = Path(os.path.abspath(base))
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


class HashCache:
    """Hashes of files by size and times, so that old files are not read again. It may get lost."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SCAN_FILE
        content = _read_cache(self._path)
        self._entries = content.get("files", {})
        self._exhausted = {key: at for key, at in content.get("spent", {}).items() if isinstance(at, int)}
        self._used: dict[str, list[Any]] = {}

    def hash_file(self, path: Path) -> tuple[int, str]:
        """Return size and sha256 of a file, read only when its size or one of its times changed.

        Raises:
            InputError: the file cannot be read.
        """
        place = os.path.realpath(path)
        try:
            stat = os.stat(place)
            stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            entry = self._entries.get(place)
            cached = entry[1] if isinstance(entry, list) and len(entry) == 2 and entry[0] == stamp else None
            sha256 = cached if isinstance(cached, str) else _hash_content(place)
        except OSError as error:
            raise InputError(
                f"{path}: the file must be readable, got '{error.strerror}'; check the path and its rights"
            ) from None
        age = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns)
        if sha256 == cached or age > _SETTLE_NS:
            self._used[place] = [stamp, sha256]
        return stat.st_size, sha256

    def list_exhausted(self, versions: Collection[int]) -> set[str]:
        """Return the contents whose rows were all known to one of some versions."""
        return {sha256 for sha256, version in self._exhausted.items() if version in versions}

    def mark_exhausted(self, hashes: Iterable[str], version: int) -> None:
        """Note that a version knows all rows of these contents."""
        self._exhausted |= dict.fromkeys(hashes, version)

    def save(self) -> None:
        """Store the hashes that were used; if that fails, the next run only takes longer."""
        with suppress(OSError):
            content = seal_record({"files": self._used, "spent": self._exhausted})
            write_atomic(self._path, json.dumps(content).encode())


def _read_cache(path: Path) -> dict[str, dict[str, Any]]:
    """Return the stored content, or nothing when it is gone, damaged, or not ours."""
    try:
        content = read_record(path)
    except (OSError, ManifestError):
        return {}
    return content if all(isinstance(part, dict) for part in content.values()) else {}


def _hash_content(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256", _bufsize=_HASH_BYTES).hexdigest()
