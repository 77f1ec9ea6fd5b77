"""Addresses that contain secrets: resolved at use, shown without them."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote_plus, urlsplit

from thresher.errors import SettingsError

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key|sig|auth|cred", re.IGNORECASE)
HIDDEN = "***"
_MIN_SECRET = 4  # characters: striking out shorter values would garble every message


class Addresses:
    """Resolves `${NAME}` from the environment, and remembers what must never be shown."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def resolve(self, text: str, *, where: str) -> str:
        """Return the address with its variables filled in.

        Raises:
            SettingsError: a variable is not set.
        """
        missing = [name for name in find_references(text) if name not in os.environ]
        if missing:
            raise SettingsError(
                f"{where}: the environment variable {missing[0]} must be set, found none; set it in the "
                f"scheduler's environment"
            )
        for name in find_references(text):
            self._remember(os.environ[name])
        filled = _REFERENCE.sub(lambda match: os.environ[match[1]], text)
        self._remember(filled)
        parts = _split(filled)
        if parts is not None:
            for part in (parts.password or "", parts.query, *_find_secrets(parts.query)):
                self._remember(part)
                self._remember(unquote_plus(part))  # as a driver may repeat it
        return filled

    def redact(self, text: str) -> str:
        """Return the text with every secret that was resolved struck out."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text

    def _remember(self, secret: str) -> None:
        if len(secret) >= _MIN_SECRET:
            self._secrets.add(secret)


def _find_secrets(query: str) -> list[str]:
    """Return the values in a query whose names say that they are secret."""
    named = [part.partition("=") for part in query.split("&")]
    return [value for name, _, value in named if _SECRET_NAME.search(name)]


def find_references(text: str) -> list[str]:
    """Return the names of the environment variables in a text."""
    return _REFERENCE.findall(text)


def redact_address(text: str, *, only_host: bool = False) -> str:
    """Return an address without user, password, query and fragment, or its host alone."""
    parts = _split(text)
    if parts is None or not parts.scheme or "$" in parts.scheme or "@" in parts.path:
        return HIDDEN  # "@" in the path: a password with "/" in it, which ends the host
    host = (parts.netloc.rpartition("@")[2]) or ""
    if "$" in host:
        host = HIDDEN
    if only_host:
        return f"{parts.scheme}://{host}/{HIDDEN}"
    path = parts.path if "$" not in parts.path else f"/{HIDDEN}"
    return f"{parts.scheme}://{host}{path}"


def has_plaintext_password(text: str) -> bool:
    """Tell whether an address contains a password that is no reference."""
    parts = _split(text)
    if parts is None:
        return False
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    return bool(password) and not _REFERENCE.fullmatch(password)


def _split(text: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SplitResult or None
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts
