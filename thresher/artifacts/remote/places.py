"""Which folder of the cache stands for which address, both ways.

CACHE/remote/in/s3/bucket/rows.jsonl     a copy of what was read at s3://bucket/rows.jsonl
CACHE/remote/out/s3/bucket/chosen        what goes to s3://bucket/chosen, once it is whole
CACHE/remote/stamps/s3/bucket/...        of what the copies are
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from thresher.artifacts.cache_root import default_root
from thresher.artifacts.remote.address import SCHEMES, Address
from thresher.errors import ThresherError

IN, OUT, STAMPS = "in", "out", "stamps"
_QUERY = re.compile(r"q-[0-9a-f]{16}")  # where the query stands that must not be seen


def find_root() -> Path:
    """Return the folder of all copies."""
    return default_root() / "remote"


def find_place(address: Address, kind: str = IN) -> Path:
    """Return the path that stands for an address; `kind` is "in", "out" or "stamps"."""
    host, _, path = address.place.strip("/").partition("/")
    hidden = [f"q-{hashlib.sha256(address.query.encode()).hexdigest()[:16]}"] if address.query else []
    return find_root().joinpath(kind, address.scheme, host, *hidden, *path.split("/"))


def find_address(path: str | Path, *kinds: str) -> Address | None:
    """Return the address, without secrets, that a path stands for; None for another path.

    Args:
        path: any.
        kinds: which copies count; default: all.
    """
    root = find_root()
    for absolute in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        for base in (root, Path(os.path.realpath(root))):
            if absolute.is_relative_to(base):
                kind, scheme, *parts = (*absolute.relative_to(base).parts, "", "")
                parts = [part for part in parts if part and not _QUERY.fullmatch(part)]
                if kind in (kinds or (IN, OUT)) and scheme in SCHEMES and parts:
                    return Address(scheme, "/".join(parts))
    return None


def show_place(path: str | Path) -> str:
    """Return the address that a path stands for, and any other path as it is."""
    address = find_address(path)
    return str(path) if address is None else str(address)


def name_addresses(text: str) -> str:
    """Return a text in which addresses stand for the paths of their copies."""
    try:
        root = str(find_root())
    except ThresherError:  # no message may fail because nobody knows where the cache is
        return text
    if root not in text:
        return text
    kinds, schemes = f"{IN}|{OUT}", "|".join(SCHEMES)
    text = re.sub(rf"{re.escape(root)}/(?:{kinds})/({schemes})/", r"\1://", text)
    return re.sub(rf"({schemes})(://[^/\s]+/){_QUERY.pattern}/", r"\1\2", text)
