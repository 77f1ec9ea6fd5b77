"""The lock of an output at an address: the same as on a disk, kept in objects.

The next number is created on the condition that it is not there (`If-None-Match` of S3,
`ifGenerationMatch` of GCS), which one host alone can. A storage that takes no notice of the
condition is refused.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from thresher.artifacts.locking.heartbeat import WIDTH
from thresher.artifacts.locking.lock import BEATS_PER_STALE, Lock
from thresher.artifacts.remote.address import Address
from thresher.artifacts.remote.storage import open_storage
from thresher.errors import InputError

STALE_S = 30.0


class RemoteLock(Lock):
    """The lock of one output at an address. Use it as a context manager; see `Lock`."""

    poll_s = 2.0

    def __init__(
        self,
        folder: Address,
        *,
        place: Address,
        stale_s: float = STALE_S,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(Path(folder.name), stale_s=stale_s, on_wait=on_wait)
        self.place = str(place)
        self._objects = folder
        self._storage = open_storage(folder)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _make_folder(self) -> None:
        """Do nothing: an object store has no folders."""

    def _list_names(self) -> list[str]:
        return list(self._storage.list_files(self._objects))

    def _read(self, name: str) -> bytes | None:
        try:
            return self._storage.read(self._objects.join(name))
        except InputError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        self._storage.write(self._objects.join(name), content)

    def _write_new(self, name: str, content: bytes) -> bool:
        address = self._objects.join(name)
        if not self._storage.create(address, content):
            return self._read(name) == content  # an answer that was lost, and the call repeated
        if self._storage.create(address, content):
            self._delete(name)
            raise InputError(
                f"{self.place}: the storage must create objects on condition (If-None-Match), and this one takes no "
                "notice of it, so that two runs could not be kept apart; write to a folder, and copy that"
            )
        return True

    def _delete(self, name: str) -> None:
        self._storage.delete(self._objects.join(name))

    def _say_free(self, name: str) -> None:
        self._write(name, json.dumps({"state": "free"}).encode())

    def _start_beating(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._count_beats, args=(self._number,), daemon=True)
        self._thread.start()

    def _count_beats(self, number: int) -> None:
        count = 0
        while not self._stop.wait(self._stale_s / BEATS_PER_STALE):
            count += 1
            try:
                self._write(f"{number:06d}.beat", str(count).zfill(WIDTH).encode())
            except InputError:  # a storage that is away for a moment
                continue

    def _stop_beating(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
