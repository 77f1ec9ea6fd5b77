"""One thread's connection to a server: whole answers only, within a time and a size.

The timeouts of HTTP libraries hold for each read, so that a server that sends a byte now and then
is read for ever. Here a timer cuts the connection when the whole answer is due, headers included.
The size counts what is unpacked.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER_BYTES = 16 << 20  # hundreds of times the largest answer that is asked for


class LateError(Exception):
    """The whole answer is not there in time."""


class TooLargeError(Exception):
    """The answer is larger than any that was asked for."""


@dataclass(frozen=True)
class Answer:
    """What a server sent.

    Attributes:
        status: of HTTP.
        headers: by name, in any case.
        content: unpacked.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class ServerConnection:
    """A client of one connection, for one thread, which another thread may cut."""

    def __init__(self, http: httpx2.Client, limit_s: float) -> None:
        """Take a client that holds at most one connection, and the seconds for an answer."""
        self._http = http
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_late = False

    def ask(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Send a request, and return the whole answer.

        Raises:
            LateError: it is not there in time.
            TooLargeError: it is too large.
            httpx2.RequestError: the connection failed.
        """
        import httpx2

        self._is_late = False
        timer = threading.Timer(self._limit_s, self._cut)
        timer.daemon = True
        timer.start()
        try:
            answer = self._read(method, url, body)
        except httpx2.RequestError:
            if self._is_late:
                raise LateError from None
            raise
        finally:
            timer.cancel()
        if self._is_late:  # cut while it was read, which looks like the end of an answer
            raise LateError
        return answer

    def _read(self, method: str, url: str, body: Mapping[str, Any] | None) -> Answer:
        content = bytearray()
        with self._http.stream(method, url, json=body, extensions={"trace": self._note_socket}) as response:
            for part in response.iter_bytes():
                content += part
                if len(content) > MAX_ANSWER_BYTES:
                    raise TooLargeError
            return Answer(response.status_code, response.headers, bytes(content))

    def _note_socket(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the socket that was opened, for the timer."""
        if event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            return
        with self._lock:
            self._socket = info["return_value"].get_extra_info("socket")
        if self._is_late:
            self._cut()

    def _cut(self) -> None:
        """End the connection: whoever reads from it goes on at once."""
        self._is_late = True
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):  # closed already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
