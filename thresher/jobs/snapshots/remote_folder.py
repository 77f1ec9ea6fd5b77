"""The output folder of a job at an address: copied here, changed here, published by its pointer.

A snapshot is there once its manifest is, which is uploaded last; the object `latest` names the
newest. Who holds the lock deletes what a killed run has left without a manifest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from thresher.artifacts.locking.lock import Lock
from thresher.artifacts.remote.address import Address
from thresher.artifacts.remote.fetch import copy_files
from thresher.artifacts.remote.lock import RemoteLock
from thresher.artifacts.remote.places import OUT, find_place
from thresher.artifacts.remote.storage import RemoteFile, Storage, open_storage
from thresher.artifacts.seal import MANIFEST
from thresher.errors import InputError, OutputError
from thresher.jobs.history import FILE as HISTORY
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.folder import (
    LATEST,
    SEEN,
    SNAPSHOTS,
    UNANNOUNCED,
    VERSION,
    JobFolder,
    Pruned,
    Snapshot,
    format_version,
)
from thresher.jobs.snapshots.read import DATA
from thresher.jobs.sources.scan import SCAN_FILE

LOCK = ".lock"


def open_to_write(job: Job) -> JobFolder:
    """Return the output folder of a job for a run."""
    address = job.output_address
    return JobFolder(job.output_folder) if address is None else RemoteJobFolder(address)


def open_to_read(job: Job, *, with_all_rows: bool = False) -> JobFolder:
    """Return the output folder of a job, or a copy of it that no run changes.

    Args:
        job: the job.
        with_all_rows: of an address, copy the rows of all snapshots, not of the newest alone.

    Raises:
        InputError: the storage cannot be asked.
    """
    address = job.output_address
    if address is None:
        return JobFolder(job.output_folder)
    storage, folder = open_storage(address), find_place(address)
    files = storage.list_files(address)
    if not with_all_rows:
        files = _skip_old_rows(files, _read_latest(storage, address, files))
    copy_files(storage, files, folder)
    return JobFolder(folder)


class RemoteJobFolder(JobFolder):
    """One output folder at an address, and its copy here. Whoever changes it must hold its lock."""

    def __init__(self, address: Address) -> None:
        super().__init__(find_place(address, OUT))
        self._address = address
        self._storage = open_storage(address)
        self._there: set[str] = set()  # what is at the address

    def create(self) -> None:
        """Refuse an address where something else is.

        Raises:
            OutputError: it holds something, and is not the output folder of a job.
            InputError: the storage refused it.
        """
        names = [name for name in self._storage.list_files(self._address) if not name.startswith(".")]
        if names and not any(name.startswith(f"{SNAPSHOTS}/") or name in (HISTORY, SCAN_FILE) for name in names):
            raise OutputError(
                f"{self._address}: the output folder must be new, empty or of this job, it holds {names[0]}; "
                "choose another folder in [output]"
            )

    def make_lock(self, stale_s: float, on_wait: Callable[[str], None]) -> Lock:
        """Return the lock of the folder, which is kept at the address."""
        return RemoteLock(self._address.join(LOCK), place=self._address, stale_s=stale_s, on_wait=on_wait)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Copy the folder here, and save the history at the end."""
        self._pull()
        try:
            yield
        except BaseException:
            with contextlib.suppress(InputError):  # the first error is the one to tell of
                self.save_state()
            raise
        self.save_state()

    def _pull(self) -> None:
        """Copy what a run needs; finish or delete what a killed run has left at the address."""
        files = self._storage.list_files(self._address)
        for name in [name for name in files if _is_unfinished(name, files)]:
            self._storage.delete(self._address.join(name))
            del files[name]
        latest, unannounced = _read_latest(self._storage, self._address, files), self._read_unannounced(files)
        if unannounced is not None and unannounced > (latest or 0) and _name_manifest(unannounced) in files:
            latest = unannounced
            self._point_there(latest)
            files = self._storage.list_files(self._address)
        copy_files(self._storage, _skip_old_rows(files, latest), self.path)
        self.snapshots.mkdir(parents=True, exist_ok=True)  # a run may have left its history alone
        self.seen.mkdir(exist_ok=True)
        if unannounced is not None:
            (self.path / UNANNOUNCED).write_text(format_version(unannounced))
        self._there = set(files)

    def _read_unannounced(self, files: dict[str, RemoteFile]) -> int | None:
        if UNANNOUNCED not in files:
            return None
        match = VERSION.fullmatch(self._storage.read(self._address.join(UNANNOUNCED)).decode(errors="replace"))
        return None if match is None else int(match[1])

    def publish(self, version: int, *, check: Callable[[], None]) -> Snapshot:
        """Seal the snapshot here, upload it, the manifest last, and point to it."""
        snapshot = super().publish(version, check=check)
        for path in sorted(self.seen.iterdir()):  # the snapshot lists them
            if f"{SEEN}/{path.name}" not in self._there:
                self._upload(path)
        self._storage.write(self._address.join(UNANNOUNCED), format_version(version).encode())
        manifest = snapshot.path / MANIFEST
        for path in sorted(snapshot.path.rglob("*")):
            if path.is_file() and path != manifest:
                self._upload(path)
        check()
        self._upload(manifest)
        check()
        self._point_there(version)
        return snapshot

    def _upload(self, path: Path) -> None:
        name = path.relative_to(self.path).as_posix()
        self._storage.upload(path, self._address.join(name))
        self._there.add(name)

    def _point_there(self, version: int) -> None:
        self._storage.write(self._address.join(LATEST), f"{SNAPSHOTS}/{format_version(version)}".encode())

    def mark_announced(self, version: int) -> None:
        """Forget that a snapshot was not announced yet, here and at the address."""
        super().mark_announced(version)
        if self._read_unannounced(self._storage.list_files(self._address)) == version:
            self._storage.delete(self._address.join(UNANNOUNCED))

    def prune(self, keep: int) -> Pruned:
        """Delete old snapshots here and at the address, where the manifest goes first."""
        pruned = super().prune(keep)
        for version in pruned.deleted:
            self._storage.delete(self._address.join(_name_manifest(version)))
            folder = f"{SNAPSHOTS}/{format_version(version)}/"
            for name in [name for name in self._there if name.startswith(folder)]:
                self._storage.delete(self._address.join(name))
        return pruned

    def save_state(self) -> None:
        """Upload history and hashes of files; delete lists of rows that no snapshot names."""
        for name in (HISTORY, SCAN_FILE):
            if (self.path / name).is_file():
                self._upload(self.path / name)
        for name in sorted(self._there):
            if name.startswith(f"{SEEN}/") and not (self.path / name).is_file():
                self._storage.delete(self._address.join(name))
                self._there.remove(name)


def _name_manifest(version: int) -> str:
    return f"{SNAPSHOTS}/{format_version(version)}/{MANIFEST}"


def _is_unfinished(name: str, files: dict[str, RemoteFile]) -> bool:
    """Tell whether an object is part of a snapshot without a manifest."""
    folder, _, rest = name.partition("/")
    version = rest.partition("/")[0]
    return folder == SNAPSHOTS and f"{SNAPSHOTS}/{version}/{MANIFEST}" not in files


def _read_latest(storage: Storage, address: Address, files: dict[str, RemoteFile]) -> int | None:
    if LATEST not in files:
        return None
    match = VERSION.search(storage.read(address.join(LATEST)).decode(errors="replace"))
    return None if match is None else int(match[1])


def _skip_old_rows(files: dict[str, RemoteFile], latest: int | None) -> dict[str, RemoteFile]:
    """Return the files but for the rows of snapshots before the newest."""
    newest = None if latest is None else format_version(latest)

    def is_needed(name: str) -> bool:
        parts = name.split("/")
        return len(parts) < 4 or parts[0] != SNAPSHOTS or parts[1] == newest or parts[2] != DATA

    return {name: file for name, file in files.items() if is_needed(name) and not _is_unfinished(name, files)}
