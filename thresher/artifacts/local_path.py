"""Paths of this machine, as users write them: with a ~, in UTF-8, and never an address."""

from __future__ import annotations

import os
import re
from pathlib import Path

from thresher.errors import InputError

# A scheme of two letters or more: "C:/" is a drive. pathlib makes one slash of two.
_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+(?:[^/@]*@)?([^/?#]*)")


def expand_path(path: str | Path) -> Path:
    """Return a path with a leading ~ replaced by the home folder, as in a shell.

    Raises:
        InputError: it is an address, or not UTF-8.
    """
    refuse_address(path)
    refuse_other_bytes(path)
    return Path(os.path.expanduser(path))  # leaves "~nobody" as it is, where Path.expanduser raises


def refuse_other_bytes(path: str | Path) -> None:
    """Refuse a path that is not UTF-8, in itself or in the folder that it starts from.

    Raises:
        InputError: it is not.
    """
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="replace")
        raise InputError(
            f"{shown}: the whole path must be UTF-8, because results hold it; rename the file or folder"
        ) from None


def refuse_address(path: str | Path) -> None:
    """Refuse an address such as s3://bucket/rows, which would otherwise be a local folder "s3:".

    Raises:
        InputError: it is an address; its password and query are not repeated.
    """
    match = _ADDRESS.match(str(path))
    if match is not None:
        raise InputError(
            f"{match[1]}://{match[2]}: a path of this machine or of a mounted share is required, got an address; "
            "copy the files to a folder, and give that path (rows and --out may stand at addresses: docs/addresses.md)"
        )
