"""Bringing here what is read at an address: a file, a folder, or what a pattern matches.

A copy stays in the cache and is used again for as long as the storage says that nothing changed.
A folder of results is taken by its manifest: whole, or not at all.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from thresher.artifacts.disk_errors import delete_folder
from thresher.artifacts.remote.address import Address, is_address, parse_address, strip_file_scheme
from thresher.artifacts.remote.places import STAMPS, find_place
from thresher.artifacts.remote.storage import RemoteFile, Storage, open_storage
from thresher.artifacts.seal import IDENTITY, MANIFEST, find_damage
from thresher.errors import InputError, ManifestError

_POINTER = re.compile(r"snapshots/v\d{6,}")


def localize(place: str | Path) -> str | Path:
    """Return the path of a copy of what is at an address; any other text or path as it is.

    Raises:
        InputError: the address is malformed, nothing is there, or it cannot be read.
        MissingExtraError: the package for such addresses is not installed.
        ManifestError: a folder of results there is not whole.
    """
    if is_address(place):
        return fetch(parse_address(place))
    return strip_file_scheme(place) if isinstance(place, str) else Path(strip_file_scheme(str(place)))


def fetch(address: Address, *, may_match_nothing: bool = False) -> Path:
    """Copy what is at an address to the cache, and return the path of the copy.

    Args:
        address: of a file, a folder or a pattern.
        may_match_nothing: a pattern that matches no file is fine.

    Raises:
        InputError: nothing is there, or it cannot be read.
        MissingExtraError: the package for such addresses is not installed.
        ManifestError: a folder of results there is not whole.
    """
    storage = open_storage(address)
    if address.has_magic:
        return _fetch_matches(storage, address, may_match_nothing=may_match_nothing)
    file = storage.find(address)
    if file is not None:
        path = copy_file(storage, file)
        if address.name == "latest" and path.stat().st_size < 100 and _POINTER.fullmatch(path.read_text().strip()):
            return fetch(Address(address.scheme, f"{address.parent.rest}/{path.read_text().strip()}"))
        return path
    files = storage.list_files(address)
    if not files:
        raise InputError(f"{address}: nothing is there; check the address")
    if MANIFEST not in files and IDENTITY in files:
        raise InputError(
            f"{address}: the result must be whole, found one whose upload was not finished; run the command that "
            "writes it again"
        )
    folder = find_place(address)
    for attempt in range(2):
        copy_files(storage, files, folder, is_fresh=bool(attempt))
        damage = find_damage(folder) if (folder / MANIFEST).is_file() else None
        if damage is None:
            return folder
        files = storage.list_files(address)  # it was replaced while we read it
    raise ManifestError(f"{damage}; write the result at {address} again")


def copy_files(storage: Storage, files: dict[str, RemoteFile], folder: Path, *, is_fresh: bool = False) -> None:
    """Make a folder the copy of the files of another, but for hidden ones, the manifest last.

    Args:
        storage: where they are.
        files: by their path in the folder.
        folder: of the copies; what else it holds is deleted.
        is_fresh: copy also what seems to be the same.
    """
    if folder.is_file():
        folder.unlink()
    names = [name for name in files if not any(part.startswith(".") for part in name.split("/"))]
    _delete_others((Path(at, name) for at, _, inside in os.walk(folder) for name in inside), folder, set(names))
    for at, _, _ in list(os.walk(folder, topdown=False)):
        if Path(at) != folder and not os.listdir(at):
            os.rmdir(at)
    for name in sorted(names, key=lambda name: (name == MANIFEST, name)):
        copy_file(storage, files[name], folder / name, is_fresh=is_fresh)


def copy_file(storage: Storage, file: RemoteFile, path: Path | None = None, *, is_fresh: bool = False) -> Path:
    """Copy an object, unless the copy that is there is of the same; return its path."""
    path, stamps = path or find_place(file.address), find_place(file.address, STAMPS)
    stamps = stamps.with_name(f"{stamps.name}.json")
    if not is_fresh and file.stamp is not None and _read_stamp(stamps) == [file.stamp, *_describe_copy(path)]:
        return path
    if path.is_dir():
        delete_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        storage.download(file.address, temporary)
        if file.bytes is not None and temporary.stat().st_size != file.bytes:
            raise InputError(f"{file.address}: must stay as it is while it is read, its size changed; run again")
        if file.stamp is None and path.is_file() and filecmp.cmp(temporary, path, shallow=False):
            return path
        if file.modified is not None:
            os.utime(temporary, (file.modified, file.modified))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    stamps.parent.mkdir(parents=True, exist_ok=True)
    stamps.write_text(json.dumps([file.stamp, *_describe_copy(path)]))
    return path


def _read_stamp(path: Path) -> object:
    with suppress(OSError, ValueError):
        return json.loads(path.read_text())
    return None


def _describe_copy(path: Path) -> list[object]:
    """Return path, size and time of a copy: one that was changed by hand is no copy any more."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _fetch_matches(storage: Storage, pattern: Address, *, may_match_nothing: bool) -> Path:
    """Copy what matches a pattern, and return the pattern of the copies."""
    path = find_place(pattern)
    files = storage.match(pattern)
    if not files and not may_match_nothing:
        raise InputError(f"{pattern}: no file matches this pattern; check the address")
    base = find_place(Address(pattern.scheme, re.split(r"[*?\[]", pattern.rest)[0].rpartition("/")[0]))
    copies = {copy_file(storage, file).relative_to(base).as_posix() for file in files}
    _delete_others((Path(match) for match in _list_matches(path)), base, copies)
    return path


def _list_matches(pattern: Path) -> list[str]:
    import glob

    return [match for match in glob.glob(str(pattern), recursive=True) if os.path.isfile(match)]


def _delete_others(paths: Iterable[Path], base: Path, kept: set[str]) -> None:
    """Delete copies of what is no longer at the address."""
    for path in list(paths):
        if path.relative_to(base).as_posix() not in kept:
            path.unlink(missing_ok=True)
