"""Requests to an OpenAI-compatible server: paced, tried again, and never repeating the key."""

from __future__ import annotations

import email.utils
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from thresher.errors import InputError, MissingExtraError
from thresher.models.generation.connection import (
    MAX_ANSWER_BYTES,
    Answer,
    LateError,
    ServerConnection,
    TooLargeError,
)
from thresher.models.server_address import ServerAddress

KEY = "THRESHER_API_KEY"
CONNECT_S = 10.0
MAX_SAID = 10_000  # characters of a server's words that are looked at
FIRST_WAIT_S = 0.5  # doubles with each try
LONGEST_WAIT_S = 60.0
LONGEST_ASKED_S = 600.0  # a server that asks to wait for longer is not waited for
TRIED_AGAIN = frozenset({408, 409, 425, 429})
NEVER_AGAIN = frozenset({501, 505})


class RefusedError(Exception):
    """The server refuses a request, and would refuse it again.

    Attributes:
        status: of HTTP.
        reason: the server's words, without the key.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ServerClient:
    """Talks to one server. Used from several threads at the same time."""

    def __init__(self, address: ServerAddress) -> None:
        """Name a server; nothing is sent.

        Raises:
            InputError: the key in the environment cannot be sent.
            MissingExtraError: httpx2 is not installed.
        """
        try:
            import httpx2
        except ModuleNotFoundError:
            raise MissingExtraError("httpx2", f"the server {address.url}", "server") from None
        self.address = address
        self._key = _key()
        self._pace = Pace(address.n_per_minute)
        self._tls = httpx2.create_ssl_context()
        self._own = threading.local()
        self._connections: list[ServerConnection] = []

    def _connect(self) -> ServerConnection:
        """Return the connection of this thread."""
        import httpx2

        if not hasattr(self._own, "connection"):
            timeout_s = self.address.timeout_s
            client = httpx2.Client(
                headers={} if self._key is None else {"Authorization": f"Bearer {self._key}"},
                timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
                limits=httpx2.Limits(max_connections=1),
                follow_redirects=False,  # the key is for this server alone
                verify=self._tls,
            )
            self._own.connection = ServerConnection(client, timeout_s)
            self._connections.append(self._own.connection)
        connection: ServerConnection = self._own.connection
        return connection

    def models(self) -> list[str] | None:
        """Return the names of the models that the server says it has; None where it does not say.

        Raises:
            InputError: the server cannot be reached, or refuses the key.
        """
        import httpx2

        reason = f"no answer within {self.address.timeout_s:g} s"
        try:
            answer = self._connect().ask("GET", f"{self.address.url}/models")
        except TooLargeError:
            return None
        # the last two: no such host name
        except (LateError, httpx2.RequestError, httpx2.InvalidURL, UnicodeError) as error:
            reason = reason if isinstance(error, LateError | httpx2.TimeoutException) else _words(error)
            raise InputError(
                f"model '{self.address.url}': the server must be reachable, got '{reason}'; start it, or check the "
                f"address"
            ) from None
        self._check_key(answer.status)
        try:
            content = _parse(answer)
        except RefusedError:
            return None
        listed = content.get("data") if isinstance(content, dict) else None
        if answer.status != 200 or not isinstance(listed, list):
            return None
        return [to_one_line(model["id"]) for model in listed if isinstance(model, dict) and "id" in model]

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's answer to one request.

        No whole answer within the timeout, a lost connection, 408, 409, 425, 429 and 5xx are tried
        again, after the time that the server names or else after 0.5, 1, 2, ... 60 seconds; all
        threads wait together when the server asks for it.

        Raises:
            InputError: the server refuses the key, asks to wait for very long, or does not answer
                in any try.
            RefusedError: the server refuses the request, or its answer can never be read.
        """
        import httpx2

        reason = ""
        for attempt in range(self.address.n_tries):
            if not self._pace.wait():
                break
            wait = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
            try:
                answer = self._connect().ask("POST", f"{self.address.url}/chat/completions", body)
            except TooLargeError:
                raise RefusedError(200, f"it is larger than {MAX_ANSWER_BYTES >> 20} MiB") from None
            except (LateError, httpx2.TimeoutException):
                reason = f"no answer within {self.address.timeout_s:g} s"
            except httpx2.RequestError as error:
                reason = _words(error)
            else:
                content = _parse(answer)
                if answer.status == 200 and isinstance(content, dict):
                    return content
                reason = self._refusal(answer.status, content)
                delay = parse_retry_delay(answer.headers, now=time.time())
                if delay is not None:
                    self._check_wait(delay)
                    self._pace.pause(delay)
            if attempt + 1 < self.address.n_tries:
                self._pace.sleep(wait)
        raise InputError(
            f"model '{self.address.url}': the server must answer, got '{reason}' in the last of {self.address.n_tries} "
            f"tries; run the same command again to resume; the answers so far are kept"
        )

    def stop(self) -> None:
        """Send nothing more; threads that wait to send go on at once and fail."""
        self._pace.stop()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def _refusal(self, status: int, content: Any) -> str:
        """Return why a request is to be tried again.

        Raises:
            RefusedError: it is not to be tried again.
        """
        self._check_key(status)
        words = self._said(content)
        if status == 200:
            return "an answer that is no JSON object"
        if status in TRIED_AGAIN or (status >= 500 and status not in NEVER_AGAIN):
            return f"status {status}{words and f': {words}'}"
        raise RefusedError(status, words or f"status {status}")

    def _said(self, content: Any) -> str:
        """Return the server's words for an error, one line of 200 characters, without the key."""
        words = content
        for name in ("error", "message"):
            if isinstance(words, dict):
                words = words.get(name, words.get("detail", words))
        text = to_one_line(words or "")
        return text if self._key is None else text.replace(self._key, "***")

    def _check_key(self, status: int) -> None:
        if status in (401, 403):  # the server's words are left out: they may repeat the key
            refused = "no key" if self._key is None else "the key there"
            raise InputError(
                f"model '{self.address.url}': the server must accept the key in the environment variable {KEY}, and it "
                f"refuses {refused} (status {status}); set the right one"
            )

    def _check_wait(self, seconds: float) -> None:
        if seconds > LONGEST_ASKED_S:
            raise InputError(
                f"model '{self.address.url}': the server asks to wait {seconds:,.0f} s, and {LONGEST_ASKED_S:,.0f} s "
                f"are waited for at most; run the same command again then, the answers so far are kept"
            )


class Pace:
    """When the next request may start, for all threads together."""

    def __init__(self, n_per_minute: int | None) -> None:
        self._gap = 0.0 if n_per_minute is None else 60.0 / n_per_minute
        self._next = 0.0  # time.monotonic of the next start
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> bool:
        """Wait for a start, and take it; return whether there is one: not after a stop."""
        while not self._stopped.is_set():
            with self._lock:
                now = time.monotonic()
                left = self._next - now
                if left <= 0:
                    self._next = now + self._gap
                    return True
            self._stopped.wait(left)
        return False

    def pause(self, seconds: float) -> None:
        """Let nothing start for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, unless all is stopped."""
        self._stopped.wait(seconds)

    def stop(self) -> None:
        """End all waiting."""
        self._stopped.set()


def parse_retry_delay(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that Retry-After asks to wait, by number or date; None without it."""
    text = headers.get("retry-after", "").strip()
    if text.replace(".", "", 1).isdecimal():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (ValueError, OverflowError, OSError):  # the last two: dates that no clock shows
        return None


def _key() -> str | None:
    """Return the key in the environment without white space around it, or None.

    Raises:
        InputError: it holds what no header can hold; libraries would repeat it in their message.
    """
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"model: the key in the environment variable {KEY} must be of printable ASCII characters, found others; "
            f"copy it again"
        )
    return key or None


def _parse(answer: Answer) -> Any:
    """Return the JSON of an answer, or None where it is no JSON.

    Raises:
        RefusedError: it is nested too deeply to be read.
    """
    try:
        return json.loads(answer.content)
    except ValueError:
        return None
    except RecursionError:
        if answer.status == 200:
            raise RefusedError(200, "its JSON is nested too deeply") from None
        return None


def to_one_line(value: object) -> str:
    """Return a server's words as one line of at most 200 characters."""
    try:
        return " ".join(str(value)[:MAX_SAID].split())[:200]
    except RecursionError:
        return ""


def _words(error: Exception) -> str:
    """Return an error of the connection as a few words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
