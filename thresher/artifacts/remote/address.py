"""Addresses as users write them, and as they are shown: without passwords and signatures."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from thresher.errors import InputError, OutputError

# A scheme of two letters or more: "C:/" is a drive. pathlib makes one slash of two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What a kind of storage can do.

    Attributes:
        package: that fsspec needs for it; None where it needs no other.
        is_listed: whether it can say which files it holds.
        refusal: why nothing is written there; None where it can keep the promises: an object is
            whole or not there, and it can be made on the condition that it is not there yet.
    """

    package: str | None
    is_listed: bool = True
    refusal: str | None = None


_HTTP = Scheme(
    package="aiohttp", is_listed=False, refusal="a web server takes no files whole or not at all; choose s3:// or gs://"
)
SCHEMES = {
    "s3": Scheme(package="s3fs"),
    "gs": Scheme(package="gcsfs"),
    "hf": Scheme(
        package="huggingface_hub", refusal="every file there is a commit of its own; give --out FOLDER --push-to-hub ID"
    ),
    "https": _HTTP,
    "http": _HTTP,
    "memory": Scheme(package=None),
}
_SAME = {"s3a": "s3", "gcs": "gs"}


@dataclass(frozen=True)
class Address:
    """An address of a file, a folder or a pattern.

    Attributes:
        scheme: a key of `SCHEMES`.
        rest: what follows the slashes, without a slash at its end.
    """

    scheme: str
    rest: str

    @property
    def url(self) -> str:
        """The address as the storage takes it, with the secrets that it may hold."""
        return f"{self.scheme}://{self.rest}"

    @property
    def place(self) -> str:
        """What follows the slashes, without user, password and query."""
        if self.scheme not in ("http", "https"):
            return self.rest
        host, slash, path = self.rest.partition("/")
        return host.rpartition("@")[2] + slash + re.split(r"[?#]", path, maxsplit=1)[0]

    @property
    def query(self) -> str:
        """What `place` leaves out."""
        return "" if self.place == self.rest else self.rest

    @property
    def has_magic(self) -> bool:
        """Whether it is a pattern."""
        return SCHEMES[self.scheme].is_listed and glob.has_magic(self.rest)

    @property
    def name(self) -> str:
        """The last part of the place."""
        return self.place.rpartition("/")[2]

    def join(self, name: str) -> Address:
        """Return the address of a file below this folder."""
        return Address(self.scheme, f"{self.rest}/{name}")

    @property
    def parent(self) -> Address:
        """The folder around it."""
        return Address(self.scheme, self.rest.rpartition("/")[0])

    def __str__(self) -> str:
        """Return the address without secrets."""
        return f"{self.scheme}://{self.place}"


def is_address(text: str | Path) -> bool:
    """Tell whether a text is an address of another machine; a file:// is a path."""
    match = _ADDRESS.fullmatch(str(text))
    return match is not None and match[1].lower() != "file"


def parse_address(text: str | Path) -> Address:
    """Return the address that a text is.

    Raises:
        InputError: its scheme is unknown, or it names nothing.
    """
    match = _ADDRESS.fullmatch(str(text))
    if match is None:
        raise InputError(f"{text}: must be an address such as s3://bucket/folder")
    scheme = _SAME.get(match[1].lower(), match[1].lower())
    if scheme not in SCHEMES:
        host = re.split(r"[/?#]", match[2].rpartition("@")[2], maxsplit=1)[0]
        raise InputError(
            f"{match[1]}://{host}: must be a path, or an address that begins with {', '.join(SCHEMES)} or file, got "
            f"'{match[1]}'; copy the files to a folder, or mount it and give that path"
        )
    address = Address(scheme, match[2] if scheme in ("http", "https") else match[2].rstrip("/"))
    parts = address.place.rstrip("/").split("/")
    if not parts[0] or any(part in ("", ".", "..") for part in parts) or "\0" in address.rest:
        raise InputError(f"{address}: must name a place with no empty part, '.' or '..'; write the address out")
    return address


def strip_file_scheme(text: str) -> str:
    """Return the path of a file:// address, and any other text as it is.

    Raises:
        InputError: it names another machine.
    """
    match = re.fullmatch(r"file:(//)?([^/]*)(/.*)?", text, re.IGNORECASE | re.DOTALL)
    if match is None or not match[3]:
        return text
    if match[2] not in ("", "localhost"):
        raise InputError(f"{text}: a file:// address must name this machine, as file:///folder/rows.jsonl")
    return unquote(match[3])


def refuse_unwritable(address: Address) -> None:
    """Refuse to write where the promises of outputs cannot be kept.

    Raises:
        OutputError: the scheme cannot.
    """
    refusal = SCHEMES[address.scheme].refusal
    if refusal is not None:
        raise OutputError(f"{address}: results cannot be written to {address.scheme}://: {refusal}")
    if "/" not in address.rest and address.scheme != "memory":
        raise OutputError(f"{address}: the output must be a folder of its own; give {address}/NAME")
    if address.has_magic:
        raise OutputError(f"{address}: an output must be an address without *, ? and [, since those make a pattern")
