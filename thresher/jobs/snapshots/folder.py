"""The output folder of a job: versions, the pointer to the newest, publication of the next."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from thresher.artifacts.disk_errors import delete_folder, is_unsupported
from thresher.artifacts.folder import MANIFEST, sync, write_atomic
from thresher.artifacts.locking.lock import Lock
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.seal import seal_manifest
from thresher.errors import ManifestError, OutputError, describe_os_error

SNAPSHOTS, SEEN, WORK, LATEST = "snapshots", "seen", ".work", "latest"
KIND = "snapshot"
_MARKER = "publishing"  # holds the version that is being published
UNANNOUNCED = ".untold"  # holds the version that was published, until its run has ended
VERSION = re.compile(r"v(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot on the disk.

    Attributes:
        version: its number, from 1.
        path: its folder.
        manifest: read.
    """

    version: int
    path: Path
    manifest: Manifest


class Pruned(NamedTuple):
    """Versions of old snapshots: deleted ones, and those that stay while a reader holds them."""

    deleted: list[int]
    held: list[int]


class JobFolder:
    """One output folder. Whoever changes it must hold its lock."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.snapshots = self.path / SNAPSHOTS
        self.seen = self.path / SEEN
        self.work = self.path / WORK
        # A run that lost its lock must never publish what the next one is writing.
        self._run_id = uuid.uuid4().hex[:12]
        self.pointer = self.path / LATEST

    def create(self) -> None:
        """Create the folder.

        Raises:
            OutputError: it cannot be created, or is a folder of something else.
        """
        try:
            self.check_free()
            self.snapshots.mkdir(parents=True, exist_ok=True)
            self.seen.mkdir(exist_ok=True)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"{self.path}: the output folder must be writable, got '{describe_os_error(error)}'; "
                "choose another in [output]"
            ) from None

    def make_lock(self, stale_s: float, on_wait: Callable[[str], None]) -> Lock:
        """Return the lock of the folder."""
        return Lock(self.path, stale_s=stale_s, on_wait=on_wait)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder open for a run that has its lock."""
        yield

    def save_state(self) -> None:
        """Save what is for people and for speed: the history, and the hashes of files."""

    def check_free(self) -> None:
        """Refuse a folder of something else.

        Raises:
            OutputError: it holds something, and is not the output folder of a job.
        """
        if self.path.is_dir() and not self.snapshots.is_dir():
            names = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
            if names:
                raise OutputError(
                    f"{self.path}: the output folder must be new, empty or of this job, it holds {names[0]}; "
                    "choose another folder in [output]"
                )

    def versions(self) -> list[int]:
        """Return the versions that are there, ascending."""
        if not self.snapshots.is_dir():
            return []
        matches = (VERSION.fullmatch(entry.name) for entry in self.snapshots.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def describe_versions(self) -> str:
        """Return the versions that are there as "v000001, v000002", or "none"."""
        return ", ".join(format_version(version) for version in self.versions()) or "none"

    def snapshot_path(self, version: int) -> Path:
        """Return the folder of a version."""
        return self.snapshots / format_version(version)

    def latest(self) -> Snapshot | None:
        """Return the snapshot that the pointer names, or None when there is none yet.

        Raises:
            ManifestError: the pointer names nothing that can be read, or is gone: a copy of the
                folder may lack links.
        """
        named = self._read_pointer()
        if named is None and (not self.versions() or read_version(self.work / _MARKER) is not None):
            return None  # nothing was published, or a kill came between the two renames
        match = None if named is None else VERSION.fullmatch(named)
        if match is None or not self.snapshot_path(int(match[1])).is_dir():
            target = "nothing" if named is None else f"'{named}'"
            raise ManifestError(
                f"{self.pointer}: must name a snapshot, found {target}; "
                f"point it to one of those there ({self.describe_versions()})"
            )
        return self.open_snapshot(int(match[1]))

    def open_snapshot(self, version: int) -> Snapshot:
        """Return a snapshot.

        Raises:
            ManifestError: it is not there, or not whole.
        """
        path = self.snapshot_path(version)
        if not path.is_dir():
            raise ManifestError(f"{path}: no such snapshot; there are: {self.describe_versions()}")
        try:
            manifest = Manifest.read(path)
        except ManifestError as error:
            raise ManifestError(f"{error}; or point 'latest' to an older snapshot") from None
        if manifest.content.get("kind") != KIND or manifest.content.get("version") != version:
            raise ManifestError(
                f"{path}: must be the snapshot {format_version(version)}, its manifest is that of another"
            )
        return Snapshot(version=version, path=path, manifest=manifest)

    def next_version(self) -> int:
        """Return the number of the next snapshot: a counter, whatever the clock says."""
        latest = self.latest()
        return max([0 if latest is None else latest.version, *self.versions()]) + 1

    def recover(self) -> Snapshot | None:
        """Clean up after a killed run; return the snapshot that it had finished but not announced.

        Until `mark_announced` is called, each run finds it again: whoever waits for a run hears of
        every snapshot.
        """
        begun, unannounced = read_version(self.work / _MARKER), read_version(self.path / UNANNOUNCED)
        latest = self.latest()
        newest = 0 if latest is None else latest.version
        finished = None
        if begun is not None and newest < begun and self.snapshot_path(begun).is_dir():
            finished = self.open_snapshot(begun)
            self._point(begun)
            (self.work / _MARKER).replace(self.path / UNANNOUNCED)
        elif latest is not None and newest in (begun, unannounced):
            finished = latest
            if newest != unannounced:
                write_atomic(self.path / UNANNOUNCED, format_version(newest).encode())
        else:  # the pointer was set by hand since
            (self.path / UNANNOUNCED).unlink(missing_ok=True)
        self._clear_work()
        self._remove_work()
        return finished

    def mark_announced(self, version: int) -> None:
        """Forget that a snapshot was not announced yet: its run has ended and reported it.

        The lock need not be held: what another run has published since stays unannounced.
        """
        if read_version(self.path / UNANNOUNCED) == version:
            (self.path / UNANNOUNCED).unlink(missing_ok=True)

    def create_work(self, version: int) -> Path:
        """Return an empty folder to write a snapshot into."""
        self._clear_work()
        folder = self._work_path(version)
        folder.mkdir(parents=True)
        return folder

    def _work_path(self, version: int) -> Path:
        return self.work / f"{format_version(version)}-{self._run_id}"

    def publish(self, version: int, *, check: Callable[[], None]) -> Snapshot:
        """Seal the snapshot in the work folder, make it visible, and point to it.

        Args:
            version: its number.
            check: raises when the lock is lost; called right before each rename, since a machine
                may be suspended while it syncs.

        Raises:
            OutputError: there is a snapshot of this version already.
        """
        work, path = self._work_path(version), self.snapshot_path(version)
        write_atomic(work / MANIFEST, seal_manifest(work))
        for folder, _, names in os.walk(work):
            for name in names:
                sync(Path(folder, name))
            sync(Path(folder))
        check()
        write_atomic(self.work / _MARKER, format_version(version).encode())
        if path.exists():
            raise OutputError(f"{path}: a snapshot of this version appeared during the run; run again")
        work.rename(path)
        sync(self.snapshots)
        check()
        self._point(version)
        (self.work / _MARKER).replace(self.path / UNANNOUNCED)
        return self.open_snapshot(version)

    def prune(self, keep: int) -> Pruned:
        """Delete old snapshots, but for the one pointed to and those that a reader holds."""
        latest = self.latest()
        old = [version for version in self.versions()[:-keep] if latest is None or version != latest.version]
        held = [version for version in old if _is_held(self.snapshot_path(version) / MANIFEST)]
        deleted = [version for version in old if version not in held]
        for version in deleted:
            self.work.mkdir(exist_ok=True)
            # Out of sight first: no reader finds half a snapshot.
            grave = self.work / f"deleted-{format_version(version)}-{self._run_id}"
            self.snapshot_path(version).rename(grave)
            delete_folder(grave)
        self._remove_work()
        return Pruned(deleted, held)

    def discard(self, version: int) -> None:
        """Delete what a failed run has written so far, and nothing of another run."""
        shutil.rmtree(self._work_path(version), ignore_errors=True)

    def _remove_work(self) -> None:
        with contextlib.suppress(OSError):  # gone, or something is left for the next run
            self.work.rmdir()

    def _clear_work(self) -> None:
        """Delete what other runs left: on a network share, not what a reader still has open.

        What stays is in nobody's way, since every name of ours is new.
        """
        for entry in self.work.iterdir() if self.work.is_dir() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def _read_pointer(self) -> str | None:
        if self.pointer.is_symlink():
            return Path(os.readlink(self.pointer)).name
        if self.pointer.is_file():
            return Path(self.pointer.read_text(errors="replace").strip()).name
        return None

    def _point(self, version: int) -> None:
        """Replace the pointer by a rename: a reader sees the old snapshot or the new one."""
        target = f"{SNAPSHOTS}/{format_version(version)}"
        temporary = self.path / f".{LATEST}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(target)
        except OSError as error:  # a file system without links: a file with the name
            if not is_unsupported(error):
                error.filename, error.filename2 = str(self.pointer), None  # it names the target
                raise
            write_atomic(temporary, target.encode())
        temporary.replace(self.pointer)
        sync(self.path)


def format_version(version: int) -> str:
    """Return the name of a version's folder."""
    return f"v{version:06d}"


def read_version(marker: Path) -> int | None:
    """Return the version that a marker names, or None."""
    match = VERSION.fullmatch(marker.read_text().strip()) if marker.is_file() else None
    return None if match is None else int(match[1])


def _is_held(path: Path) -> bool:
    """Tell whether a reader has a lock on a file, as `flock --shared FILE COMMAND` has."""
    try:
        import fcntl  # there is none on Windows
    except ImportError:
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no manifest to hold, or a file system without locks
        return False
    return False
