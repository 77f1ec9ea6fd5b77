"""An output folder at an address: made here, uploaded whole, the manifest last.

Whoever follows the manifest sees all of a result or nothing. While files are uploaded, the object
`identity.txt` says so; where a run was killed, the next one replaces what it left.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
from pathlib import Path
from typing import Any

from thresher.artifacts.disk_errors import delete_folder
from thresher.artifacts.remote.address import Address, is_address, parse_address, refuse_unwritable, strip_file_scheme
from thresher.artifacts.remote.fetch import copy_file, copy_files
from thresher.artifacts.remote.lock import RemoteLock
from thresher.artifacts.remote.places import OUT, find_address, find_place
from thresher.artifacts.remote.storage import RemoteFile, check_package, open_storage
from thresher.artifacts.seal import IDENTITY, MANIFEST, find_damage
from thresher.errors import OutputError


def stage(place: str | Path) -> str | Path:
    """Return the path at which a result is made that goes to an address; any other as it is.

    Raises:
        InputError: the address is malformed.
        MissingExtraError: the package for such addresses is not installed.
        OutputError: such a place cannot keep the promises of outputs.
    """
    if not is_address(place):
        return strip_file_scheme(place) if isinstance(place, str) else Path(strip_file_scheme(str(place)))
    address = parse_address(place)
    refuse_unwritable(address)
    check_package(address.scheme)
    return find_place(address, OUT)


def find_result(path: Path) -> RemoteResult | None:
    """Return the result at an address that is made at a path; None for a path of this machine."""
    address = find_address(path, OUT)
    return None if address is None else RemoteResult(address, path)


def upload_files(path: Path, names: list[str]) -> None:
    """Upload files that were added to the copy of a folder, as its page; do nothing for a path.

    Raises:
        OutputError: the folder is where nothing can be written.
        InputError: the storage refused it.
    """
    address = find_address(path)
    if address is not None:
        refuse_unwritable(address)
        storage = open_storage(address)
        for name in names:
            storage.upload(path / name, address.join(name))


def read_back(*paths: Path) -> None:
    """Copy the objects to which files made here are to go; those that are not there are deleted.

    Raises:
        InputError: the storage refused it.
    """
    for path in paths:
        address = find_address(path, OUT)
        if address is None:
            continue
        storage = open_storage(address)
        file = storage.find(address)
        if file is None:
            path.unlink(missing_ok=True)
        else:
            copy_file(storage, file, path)


def publish_files(*paths: Path) -> None:
    """Upload files to where they are to go: the last one, deleted first, makes them a result.

    Raises:
        InputError: the storage refused it.
    """
    for number, path in enumerate((paths[-1], *paths)):
        address = find_address(path, OUT)
        if address is not None:
            storage = open_storage(address)
            storage.upload(path, address) if number else storage.delete(address)


class RemoteResult:
    """A result at an address, and the folder here in which it is made."""

    def __init__(self, address: Address, folder: Path) -> None:
        self.address = address
        self.lock = RemoteLock(address.parent.join(f".{address.name}.lock"), place=address)
        self._folder = folder
        self._storage = open_storage(address)

    def open(self, identity: str, *, force: bool) -> bool:
        """Tell whether the result of this work is there, whole; then it is copied to the folder.

        Raises:
            OutputError: something else is there, or a damaged result, and `force` is not set.
            InputError: the storage refused it.
        """
        if self._storage.find(self.address) is not None:
            raise OutputError(f"{self.address}: the output must be a folder, found a file; choose another --out")
        files = self._storage.list_files(self.address)
        content = _parse(self._storage.read(self.address.join(MANIFEST))) if MANIFEST in files else {}
        is_same = content.get("identity") == identity
        if is_same and content.get("is_complete") is not False and self._read_back(files, force=force):
            self._storage.delete(self.address.join(IDENTITY))
            return True
        if not is_same:
            self._check_free(files, content, force=force)
        theirs = _parse((self._folder / MANIFEST).read_bytes()) if (self._folder / MANIFEST).is_file() else {}
        if self._folder.exists() and theirs.get("identity") != identity:
            delete_folder(self._folder)
        return False

    def _read_back(self, files: dict[str, RemoteFile], *, force: bool) -> bool:
        copy_files(self._storage, files, self._folder)
        damage = find_damage(self._folder)
        if damage is None:
            self._forget_at_exit()
            return True
        delete_folder(self._folder)
        if not force:
            raise OutputError(f"{damage}; write the folder again with --force, or choose another --out")
        return False

    def _check_free(self, files: dict[str, RemoteFile], content: dict[str, Any], *, force: bool) -> None:
        if not files or (MANIFEST not in files and IDENTITY in files):  # or what a killed run left
            return
        first, n_more = next(iter(files)), len(files) - 1
        held = f"{first}{f' and {n_more} more' if n_more else ''}"
        if not force:
            raise OutputError(
                f"{self.address}: the output folder must be new or empty, it holds {held}; choose another --out, or "
                "replace it with --force"
            )
        if not isinstance(content.get("identity"), str):
            raise OutputError(
                f"{self.address}: --force replaces only a folder that thresher wrote, and this one has no readable "
                f"{MANIFEST} (it holds {held}); choose another --out"
            )

    def publish(self) -> None:
        """Upload the folder, which is whole: the old manifest goes first, the new one comes last.

        Raises:
            LostLockError: another run has taken the lock.
            InputError: the storage refused it.
        """
        names = {
            Path(at, name).relative_to(self._folder).as_posix(): Path(at, name)
            for at, _, inside in os.walk(self._folder)
            for name in inside
        }
        before = self._storage.list_files(self.address)
        self.lock.check()
        self._storage.write(self.address.join(IDENTITY), b"")
        if MANIFEST in before:
            self._storage.delete(self.address.join(MANIFEST))
        for name in sorted(names.keys() - {MANIFEST}):
            self._storage.upload(names[name], self.address.join(name))
        for name in before.keys() - names.keys() - {IDENTITY}:
            self._storage.delete(self.address.join(name))
        self._check_sizes(names)
        self.lock.check()  # this machine may have been suspended
        self._storage.upload(names[MANIFEST], self.address.join(MANIFEST))
        self._storage.delete(self.address.join(IDENTITY))
        self._forget_at_exit()

    def _check_sizes(self, names: dict[str, Path]) -> None:
        uploaded = self._storage.list_files(self.address)
        for name, path in names.items():
            if name != MANIFEST and (name not in uploaded or uploaded[name].bytes != path.stat().st_size):
                raise OutputError(f"{self.address.join(name)}: must be as it was uploaded, and is not; run again")

    def _forget_at_exit(self) -> None:
        """Delete what was made here once nobody can read it any more."""
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
