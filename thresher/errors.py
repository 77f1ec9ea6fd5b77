"""Errors a user can act on: one sentence with where, what was required, what was found, what to do.

    ThresherError
    ├── InputError         the data or an argument is not what is required   (ValueError)
    │   └── NothingKeptError   no row of a pool fits a budget
    ├── SettingsError      a setting has an unknown name or an illegal value  (ValueError)
    │   └── ProblemsError  several have: a line for each
    ├── NotFoundError      a name was looked up and does not exist            (LookupError)
    ├── MissingExtraError  an optional package is needed                      (ImportError)
    ├── ManifestError      a manifest cannot be read or does not match        (ValueError)
    ├── OutputError        the output folder cannot be written                (OSError)
    └── IncompleteError    the machine ended part of the work; run it again   (RuntimeError)

The command line prints the sentence and exits with 2; with 75 where the same command may succeed
later, as after an IncompleteError or while a share is away; so it does for an OSError of the
storage (`is_storage_error`). Any other exception is an internal error. `is_environment_error` tells
errors of the machine, after which the same work may succeed, from those of the rows and the
settings, which would come again.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
# by name, since torch may not be installed
_TORCH_ERRORS = {"OutOfMemoryError", "AcceleratorError", "DistBackendError"}
_SENTENCES = (  # of RuntimeErrors that have no class of their own
    "can't allocate memory",
    "not enough memory: you tried to allocate",
    "out of memory",
    "CUDA error",
    "CUBLAS_STATUS",
    "cuDNN error",
)

_PANIC = "PanicException"  # of polars, tokenizers and safetensors, each its own class
# How Rust prints an error of the operating system, as when no thread can be started.
_OS_ERROR = re.compile(r"\bos error \d+|\bOs \{ code: \d+|ThreadPoolBuildError|failed to spawn thread")

USER_ERROR, TEMPORARY, INTERNAL_ERROR = 2, 75, 1  # exit codes; 75 is EX_TEMPFAIL of sysexits.h

# What a disk or a share refuses for a time: the same command may succeed later.
_TEMPORARY = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENOLINK", "ECOMM", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ENOTCONN", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "ESHUTDOWN", "EAGAIN", "EBUSY"),
        *("ENOLCK", "ENFILE"),
    )
    if hasattr(errno, name)  # some systems lack some
}
# What it refuses until somebody changes something.
_LASTING = {
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "EMFILE", "ENAMETOOLONG", "ENOTDIR", "EISDIR"),
        *("ENOENT", "EEXIST", "ELOOP", "ENOTEMPTY", "ENODEV", "ENXIO", "EMLINK", "EXDEV", "EOPNOTSUPP", "ETXTBSY"),
    )
    if hasattr(errno, name)
}


class ThresherError(Exception):
    """Base of all errors that thresher raises on purpose."""


class InputError(ThresherError, ValueError):
    """The data or an argument is not what the call requires."""


class NothingKeptError(InputError):
    """No row of a pool fits a budget: none scores above it, or the first has too many tokens."""


class SettingsError(ThresherError, ValueError):
    """A setting has an unknown name or an illegal value."""


class ProblemsError(SettingsError):
    """Several settings are wrong: a line that counts them, and a line for each, all printable."""


class NotFoundError(ThresherError, LookupError):
    """A name (selector, column, encoder, model) does not exist."""

    def __str__(self) -> str:
        """Return the sentence itself: LookupError's own form would quote it."""
        return str(self.args[0]) if self.args else ""


class RowIndexError(InputError, IndexError):
    """There is no row with this number."""


class MissingExtraError(ThresherError, ImportError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, needed_by: str, extra: str) -> None:
        """Name the package, who needs it, and the command that installs it."""
        super().__init__(f"'{package}' is not installed; {needed_by} needs it: {install_command(extra)}")
        self.package = package
        self.extra = extra


def install_command(extra: str) -> str:
    """Return the command that installs an extra: from the clone or wheel that thresher is of."""
    try:
        origin = json.loads(distribution("thresher").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url = str(origin.get("url", ""))
    if "dir_info" in origin and url.startswith("file://"):
        folder = unquote(url.removeprefix("file://"))
        shown = "." if os.path.realpath(folder) == os.path.realpath(os.curdir) else folder
        return f"pip install '{shown}[{extra}]'"
    if url:
        return f"pip install 'thresher[{extra}] @ {url}'"
    return f"pip install 'thresher[{extra}]'"


class ManifestError(ThresherError, ValueError):
    """A manifest cannot be read, has an unknown version, or does not match its folder."""


class OutputError(ThresherError, OSError):
    """The output folder cannot be written: it is taken, locked, or the disk is full."""

    def __str__(self) -> str:
        """Return the sentence itself, without OSError's errno form."""
        return str(self.args[0]) if self.args else ""


class DeviceMemoryError(SettingsError):
    """A step does not fit the memory of the device.

    Attributes:
        is_shared: other processes held much of it, so that the same step may fit another time.
    """

    def __init__(self, message: str, *, is_shared: bool = False) -> None:
        super().__init__(message)
        self.is_shared = is_shared


class IncompleteError(ThresherError, RuntimeError):
    """The machine ended part of the work, as when memory runs out; the same call completes it."""


def is_panic(error: BaseException) -> bool:
    """Tell whether a library in Rust gave up (panicked), which is no Exception for Python."""
    return type(error).__name__ == _PANIC


def is_disk_error(error: BaseException) -> bool:
    """Tell whether an error is one of the disk, which would meet all other work, too."""
    return isinstance(error, OutputError) or (isinstance(error, OSError) and error.errno in _DISK_ERRNOS)


def is_environment_error(error: BaseException) -> bool:
    """Tell whether the machine caused an error, not the rows or settings: the same may succeed.

    Such are memory that runs out, on the host or on a device that others use, errors of a device,
    processes that were killed, and every refusal by the operating system (an OSError with a number,
    or a panic that tells of one).
    """
    if is_panic(error):
        return _OS_ERROR.search(str(error)) is not None
    if isinstance(error, DeviceMemoryError):
        return error.is_shared
    if isinstance(error, OSError):
        return error.errno is not None or isinstance(error, OutputError | ConnectionError | TimeoutError)
    cause: BaseException | None = error
    while cause is not None:  # what it was made of: errors of memory and devices hide in others
        if _is_of_memory(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | BrokenExecutor):
        return True
    for kind in type(error).__mro__:
        if kind.__name__ in _TORCH_ERRORS and kind.__module__.partition(".")[0] == "torch":
            return True
    return isinstance(error, RuntimeError) and any(sentence in str(error) for sentence in _SENTENCES)


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the nearest known name; empty where none is near enough."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean '{near[0]}'?" if near else ""


def first_three(values: Sequence[object]) -> str:
    """Return up to three of the values as text, with the count of the rest."""
    shown = ", ".join(str(value) for value in values[:3])
    return shown if len(values) <= 3 else f"{shown} and {len(values) - 3} more"


def is_storage_error(error: BaseException) -> bool:
    """Tell whether an error is one of disks and shares, which the user can fix or wait out."""
    return isinstance(error, OSError) and error.errno in _TEMPORARY | _LASTING


def find_exit_code(error: BaseException) -> int:
    """Return the exit code of an error: 2 of the user, 75 of a storage that may return, 1 internal.

    An error of thresher is temporary where it was raised because of a temporary one of the storage.
    """
    if isinstance(error, IncompleteError):
        return TEMPORARY
    if not isinstance(error, ThresherError | MemoryError) and not is_storage_error(error):
        return INTERNAL_ERROR
    return TEMPORARY if any(is_temporary(cause) for cause in _list_causes(error)) else USER_ERROR


def is_temporary(error: BaseException) -> bool:
    """Tell whether an error is one of a storage that may come back: it says nothing of the data."""
    return isinstance(error, OSError) and error.errno in _TEMPORARY


def describe_os_error(error: OSError) -> str:
    """Return what the system said, without the words of a library around it."""
    return os.strerror(error.errno).lower() if error.errno else (error.strerror or str(error)).lower()


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:  # one that was raised again may be its own
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
