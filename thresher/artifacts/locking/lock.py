"""The lock of a job's folder: one run at a time, also of two hosts that share it.

    .lock/NNNNNN        the owner, as JSON: created whole and exclusively by a link
    .lock/NNNNNN.beat   a counter that the owner's heartbeat process raises

The highest number holds the lock, unless it says that it is free or its owner is dead. Taking the
lock means creating the next number, which only one can; nothing is ever renamed or deleted on the
suspicion that it is stale.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from thresher.artifacts.disk_errors import is_unsupported
from thresher.artifacts.locking import heartbeat
from thresher.errors import InputError, OutputError, describe_os_error

FOLDER = ".lock"
BEATS_PER_STALE = 6  # beats in the time after which an owner counts as dead
POLL_S = 0.2


class BusyError(OutputError):
    """Another run holds the lock."""


class LostLockError(OutputError):
    """The lock was taken over while this run stood still."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, distinct from any other that had or will have its number.

    Attributes:
        host: name of the machine.
        boot: id of its boot; this and the following are "" where unknown.
        space: its namespace of process numbers.
        pid: number of the process.
        start: when it started, in ticks since the boot.
    """

    host: str
    boot: str
    space: str
    pid: int
    start: str

    @staticmethod
    def current() -> Owner:
        """Return the current process."""
        pid = os.getpid()
        start = _read_start(pid) or ""
        return Owner(host=socket.gethostname(), boot=_read_boot(), space=_read_namespace(), pid=pid, start=start)

    @staticmethod
    def parse(content: Mapping[str, object] | None) -> Owner | None:
        """Return the owner that a lock file names, or None where it names none."""
        try:
            values = {name: str((content or {})[name]) for name in ("host", "boot", "space", "start")}
            return Owner(**values, pid=int(str((content or {})["pid"])))
        except (KeyError, ValueError):
            return None

    def is_here(self) -> bool:
        """Whether it runs, or ran, where this process can see it."""
        return (self.host, self.boot, self.space) == (socket.gethostname(), _read_boot(), _read_namespace())

    def is_alive(self) -> bool:
        """Whether a process that is here is alive."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is alive and another user's
        return not self.start or _read_start(self.pid) in (None, self.start)

    def __str__(self) -> str:
        """Return where to find it."""
        return f"process {self.pid} on {self.host}"


class Lock:
    """The lock of one folder. Use it as a context manager.

    A run elsewhere counts as dead when its counter stood still for `stale_s` seconds, or longer if
    that run says so; `on_wait` is called once before it is watched.

    Raises:
        BusyError: on entry, when another run holds it.
        OutputError: on entry, when the folder cannot be written.
    """

    poll_s = POLL_S

    def __init__(self, folder: Path, *, stale_s: float, on_wait: Callable[[str], None] | None = None) -> None:
        self.place = str(folder)
        self._folder = folder / FOLDER
        self._stale_s = stale_s
        self._on_wait = on_wait
        self._number = 0
        self._is_mine = False
        self._beat: subprocess.Popen[bytes] | None = None
        self.taken_from: str | None = None

    def __enter__(self) -> Lock:
        """Take the lock."""
        try:
            self._make_folder()
            self._take()
        except BusyError:
            raise
        except BaseException as error:
            self._remove_files()
            if not isinstance(error, OSError):
                raise
            raise OutputError(
                f"{self._folder}: the lock of the job must be writable, got '{describe_os_error(error)}'; "
                "make the output folder writable and give it space"
            ) from None
        return self

    def _take(self) -> None:
        newest = self._find_newest()
        if newest is not None:
            self._check_free(newest)
        self._number = (newest or 0) + 1
        if not self._create(self._number):
            raise self._build_busy_error(self._number)
        self._is_mine = True
        self._write(_name_file(self._number, ".beat"), b"0" * heartbeat.WIDTH)
        if self._find_newest() != self._number:  # the listing was old: others came and went since
            self._remove_files()
            raise self._build_busy_error(self._find_newest() or self._number)
        self._start_beating()
        for name in self._list_names():
            if _parse_number(name) < self._number:
                self._delete(name)

    def check(self) -> None:
        """Refuse to go on when another run has taken the lock since.

        Raises:
            LostLockError: it has.
        """
        if self._find_newest() != self._number:
            raise LostLockError(
                f"{self.place}: the lock was taken over by another run while this one was suspended; nothing "
                f"was published; run again"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say that the lock is free; the file stays, so that the numbers go on."""
        self._stop_beating()
        # A share that is away: the next run finds this process dead.
        with contextlib.suppress(OSError, InputError):
            if self._find_newest() == self._number:
                self._say_free(_name_file(self._number))
            self._delete(_name_file(self._number, ".beat"))

    def _remove_files(self) -> None:
        """Remove the files of a lock that was not taken: this process may live on and try again."""
        self._stop_beating()
        if self._is_mine:
            self._is_mine = False
            with contextlib.suppress(OSError, InputError):
                self._delete(_name_file(self._number, ".beat"))
                self._delete(_name_file(self._number))

    def _stop_beating(self) -> None:
        if self._beat is not None:
            if self._beat.stdin is not None:
                self._beat.stdin.close()
            self._beat.wait()

    def _find_newest(self) -> int | None:
        numbers = [_parse_number(name) for name in self._list_names() if "." not in name]
        return max((number for number in numbers if number > 0), default=None)

    def _create(self, number: int) -> bool:
        """Create the file of a number, whole; tell whether it was not there."""
        content = json.dumps({"state": "held", "stale_s": self._stale_s, **asdict(Owner.current())}).encode()
        return self._write_new(_name_file(number), content)

    def _write_new(self, name: str, content: bytes) -> bool:
        """Write a file whole and exclusively; tell whether it was not there."""
        temporary = self._folder / f".{name}.{socket.gethostname()}.{os.getpid()}"
        _write(temporary, content)
        try:
            os.link(temporary, self._folder / name)
        except FileExistsError:
            return False
        except OSError as error:  # a file system without links
            if not is_unsupported(error):
                raise
            try:
                with open(self._folder / name, "xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _start_beating(self) -> None:
        interval = self._stale_s / BEATS_PER_STALE
        script = [sys.executable, "-I", "-S", str(heartbeat.__file__)]
        self._beat = subprocess.Popen(
            [*script, str(self._folder / _name_file(self._number, ".beat")), str(interval)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a keyboard interrupt is for the run, which then ends this
        )

    def _check_free(self, number: int) -> None:
        content = self._read_owner(number)
        if content is not None and content.get("state") == "free":
            return
        owner = Owner.parse(content)
        if owner is not None and owner.is_here():
            if not owner.is_alive():
                self.taken_from = str(owner)
                return
            if owner.start:
                raise self._build_busy_error(number)
        # Elsewhere, or a process of that number here of which nobody can say since when it runs.
        theirs = None if content is None else content.get("stale_s")
        stale_s = max(self._stale_s, float(theirs) if isinstance(theirs, int | float) else 0.0)
        self._watch(number, owner, stale_s)
        self.taken_from = "an unknown run" if owner is None else str(owner)

    def _watch(self, number: int, owner: Owner | None, stale_s: float) -> None:
        """Watch the counter of a run elsewhere; return when it stood still for `stale_s`."""
        if self._on_wait is not None:
            who = "a run whose name cannot be read" if owner is None else str(owner)
            self._on_wait(f"the lock is held by {who}; watching its heartbeat for up to {stale_s:g} s")
        first = self._read_state(number)
        deadline = time.monotonic() + stale_s
        is_over = False
        while not is_over:
            time.sleep(min(self.poll_s, stale_s / 10))
            # Asked before the last look: this process may be suspended in between, too.
            is_over = time.monotonic() >= deadline
            if self._find_newest() != number or self._read_state(number) != first:
                raise self._build_busy_error(self._find_newest() or number)

    def _read_state(self, number: int) -> tuple[bytes | None, bytes | None]:
        return self._read(_name_file(number)), self._read(_name_file(number, ".beat"))

    def _build_busy_error(self, number: int) -> BusyError:
        owner = Owner.parse(self._read_owner(number))
        who = "another run" if owner is None else f"another run ({owner})"
        return BusyError(f"{self.place}: {who} is running in this folder; wait for it to end")

    def _read_owner(self, number: int) -> dict[str, object] | None:
        """Return the content of a lock file, or None when it is gone or not whole."""
        try:
            content = json.loads(self._read(_name_file(number)) or b"")
        except ValueError:
            return None
        return content if isinstance(content, dict) else None

    # What another kind of storage does in its own way:

    def _make_folder(self) -> None:
        self._folder.mkdir(exist_ok=True)

    def _list_names(self) -> list[str]:
        return [path.name for path in self._folder.iterdir()]

    def _read(self, name: str) -> bytes | None:
        return _read_bytes(self._folder / name)

    def _write(self, name: str, content: bytes) -> None:
        _write(self._folder / name, content)

    def _delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _say_free(self, name: str) -> None:
        _say_free(self._folder / name)


def _name_file(number: int, suffix: str = "") -> str:
    return f"{number:06d}{suffix}"


def _parse_number(name: str) -> int:
    stem, dot, _ = name.partition(".")
    return int(stem) if stem.isdecimal() else sys.maxsize if dot else 0


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _say_free(path: Path) -> None:
    """Write into the file of a lock, at its size: a full disk has no room for another."""
    with open(path, "r+b") as file:
        size = len(file.read())
        file.seek(0)
        file.write(json.dumps({"state": "free"}).encode().ljust(size))
        file.flush()
        os.fsync(file.fileno())


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _read_boot() -> str:
    return (_read_bytes(Path("/proc/sys/kernel/random/boot_id")) or b"").decode().strip()


def _read_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read_start(pid: int) -> str | None:
    """Return when a process started, in ticks since the boot; None where that cannot be told."""
    stat = _read_bytes(Path(f"/proc/{pid}/stat"))
    if stat is None:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before may hold spaces and brackets
    if fields[0] == b"Z":
        return "zombie"  # dead, and not yet collected by its parent
    return fields[19].decode()
