"""Errors of the disk that name the file, whichever library was writing it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def naming_path(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, as those of write and fsync, the path that was meant.

    What a library in Rust reports of the disk, as safetensors does, becomes an OSError.
    """
    try:
        yield
    except OSError as error:
        name_path(error, path)
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))  # as Rust ends its messages
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def name_path(error: OSError, path: Path) -> None:
    """Let an OSError name a path, unless it names one already."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


def delete_folder(folder: Path) -> None:
    """Delete a folder and all that is in it, or a link to one; an error names its whole path."""
    if folder.is_symlink():
        folder.unlink()
    elif sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=_raise_with_path)
    else:
        shutil.rmtree(folder, onerror=lambda call, path, info: _raise_with_path(call, path, info[1]))


def _raise_with_path(_: object, path: str, error: BaseException) -> NoReturn:
    if isinstance(error, OSError):
        error.filename = path  # of which the system knows the last part alone
    raise error


def is_unsupported(error: OSError) -> bool:
    """Tell whether a file system refused to make a link because it has none of the kind."""
    return error.errno in _NO_LINKS or not hasattr(os, "link")


@contextmanager
def writing_safetensors(folder: Path) -> Iterator[None]:
    """Let a library write safetensors into a folder, with the errors and modes of other files.

    safetensors makes its files readable by their owner alone; others give theirs what the umask
    leaves.
    """
    with naming_path(folder):
        yield
        mask = os.umask(0o077)  # it can be read only by setting it
        os.umask(mask)
        for path in folder.rglob("*.safetensors"):
            path.chmod(0o666 & ~mask)
