"""Two folders that exchange places in one step, where the system can do that.

That is Linux with a local file system such as ext4, xfs, btrfs or tmpfs (rename(2),
RENAME_EXCHANGE); NFS and other systems cannot.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def exchange_folders(one: Path, other: Path) -> bool:
    """Let two folders exchange places, so that each name is there at any moment.

    Returns:
        Whether it was done; False where the system or the file system cannot do it.

    Raises:
        OSError: they can, and it failed.
    """
    libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if libc is None or not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
