"""The storage behind an address, by fsspec, which reads and writes whole objects."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from thresher.artifacts.disk_errors import naming_path
from thresher.artifacts.remote.address import SCHEMES, Address
from thresher.artifacts.remote.errors import explain_errors
from thresher.errors import MissingExtraError

_TAGS = ("ETag", "etag", "md5Hash", "Content-MD5", "blob_id", "oid", "generation", "VersionId")
_TIMES = ("LastModified", "updated", "mtime", "created")
_VOLATILE = ("memory",)  # which has no tag but the time


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One object.

    Attributes:
        address: of the object.
        bytes: its size; None where the server does not say.
        stamp: changes with its content; None where the server says nothing that does.
        modified: seconds since 1970; None where unknown.
    """

    address: Address
    bytes: int | None
    stamp: str | None
    modified: float | None


def check_package(scheme: str) -> None:
    """Refuse a scheme whose package is not installed.

    Raises:
        MissingExtraError: it is not.
    """
    for package in ("fsspec", SCHEMES[scheme].package):
        if package is not None and importlib.util.find_spec(package) is None:
            extra = {"huggingface_hub": "hub", "gcsfs": "gcs"}.get(package, "remote")
            raise MissingExtraError(package, f"an address that begins with {scheme}://", extra)


class Storage:
    """The storage of one scheme. All that fails is said in one sentence (`explain_errors`)."""

    def __init__(self, scheme: str) -> None:
        check_package(scheme)
        import fsspec

        self._files = fsspec.filesystem(scheme, use_listings_cache=False)

    def find(self, address: Address) -> RemoteFile | None:
        """Return the object at an address, or None where there is none.

        Raises:
            InputError: the storage cannot be asked.
        """
        answer: BaseException | None = None
        with explain_errors(address):
            try:
                info = self._files.info(address.url)
            except FileNotFoundError as error:
                if SCHEMES[address.scheme].is_listed or error.__cause__ is None:
                    return None
                answer = error.__cause__  # whatever a web server answers, fsspec says this
            if answer is not None:
                raise answer
        return _describe(address, info) if info.get("type") != "directory" else None

    def list_files(self, folder: Address) -> dict[str, RemoteFile]:
        """Return all objects below a folder, by their path from there; empty where there is none.

        Raises:
            InputError: the storage cannot be asked.
        """
        if not SCHEMES[folder.scheme].is_listed:
            return {}
        with explain_errors(folder):
            self._files.invalidate_cache()
            listed = self._files.find(folder.url, detail=True)
        prefix = self._files._strip_protocol(folder.url).strip("/") + "/"
        named = {path.strip("/").removeprefix(prefix): info for path, info in listed.items()}
        named = {name: info for name, info in named.items() if name and f"{name}/" != prefix}
        return {name: _describe(folder.join(name), info) for name, info in sorted(named.items())}

    def match(self, pattern: Address) -> list[RemoteFile]:
        """Return the objects that match a pattern.

        Raises:
            InputError: the storage cannot be asked.
        """
        with explain_errors(pattern):
            self._files.invalidate_cache()
            found = self._files.glob(pattern.url, detail=True)
        return [
            _describe(Address(pattern.scheme, path.strip("/")), info)
            for path, info in sorted(found.items())
            if info.get("type") != "directory"
        ]

    def read(self, address: Address) -> bytes:
        """Return the content of an object.

        Raises:
            InputError: it cannot be read.
        """
        with explain_errors(address):
            return bytes(self._files.cat_file(address.url))

    def download(self, address: Address, path: Path) -> None:
        """Copy an object to a file of this machine.

        Raises:
            InputError: it cannot be read.
            OSError: the file cannot be written.
        """
        with naming_path(path), explain_errors(address):
            self._files.get_file(address.url, str(path))

    def upload(self, path: Path, address: Address) -> None:
        """Copy a file of this machine to an object, which appears whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        with explain_errors(address):
            self._files.put_file(str(path), address.url)

    def write(self, address: Address, content: bytes) -> None:
        """Write an object.

        Raises:
            InputError: it cannot be written.
        """
        with explain_errors(address):
            self._files.pipe_file(address.url, content)

    def create(self, address: Address, content: bytes) -> bool:
        """Write an object on the condition that it is not there; tell whether that was so.

        Raises:
            InputError: it cannot be written, or the storage has no such condition.
        """
        with explain_errors(address):
            try:
                self._files.pipe_file(address.url, content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if "PreconditionFailed" in str(error) or "conditional" in str(error).lower():
                    return False
                raise
            return True

    def delete(self, address: Address) -> None:
        """Delete an object; one that is not there is fine.

        Raises:
            InputError: it cannot be deleted.
        """
        with explain_errors(address):
            try:
                self._files.rm_file(address.url)
            except FileNotFoundError:
                return


def _describe(address: Address, info: dict[str, Any]) -> RemoteFile:
    size = info.get("size")
    times = [info[name] for name in _TIMES if info.get(name) is not None]
    modified = _parse_time(times[0]) if times else None
    tags = {name: str(info[name]) for name in _TAGS if info.get(name)}
    if modified is not None and (not tags or address.scheme in _VOLATILE):
        tags["modified"] = repr(modified)
    stamp = hashlib.sha256(json.dumps([size, tags], sort_keys=True).encode()).hexdigest() if tags else None
    return RemoteFile(address=address, bytes=size if isinstance(size, int) else None, stamp=stamp, modified=modified)


def _parse_time(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, datetime):
        return value.timestamp()
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def open_storage(address: Address) -> Storage:
    """Return the storage of an address.

    Raises:
        MissingExtraError: its package is not installed.
        InputError: it cannot be opened.
    """
    with explain_errors(address):
        return Storage(address.scheme)
