"""Addresses of servers that answer in place of a local model: http://HOST:PORT/v1?SETTING=VALUE#MODEL."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from thresher.errors import InputError, SettingsError, did_you_mean

SCHEMES = ("http://", "https://")
SETTINGS = {"timeout": "timeout_s", "in_flight": "n_in_flight", "tries": "n_tries", "per_minute": "n_per_minute"}
FORM = "http://HOST:PORT/v1#MODEL"


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """Where a server is, which of its models is meant, and how it is asked. Holds no key.

    Attributes:
        url: of the API, such as "http://localhost:8000/v1".
        model: as the server names it; None for the only one it has.
        timeout_s: seconds to wait for one answer.
        n_in_flight: requests under way at the same time.
        n_tries: of a request that meets no answer, a busy server (429) or an error of the server
            (5xx).
        n_per_minute: requests that may start in a minute; None for as many as there are.
    """

    url: str
    model: str | None = None
    timeout_s: float = 120.0
    n_in_flight: int = 8
    n_tries: int = 6
    n_per_minute: int | None = None

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Read an address.

        Args:
            text: "http://HOST:PORT/v1#MODEL"; the settings timeout, in_flight, tries and per_minute
                may stand behind a question mark before the model; "/v1" stands for an empty path.

        Raises:
            InputError: it has no host, or holds a user name or a password.
            SettingsError: a setting is unknown or has an illegal value.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise InputError(f"model: the address of a server must be {FORM}, got a port that is no number") from None
        if "@" in parts.netloc:  # not repeated: it may be a password
            raise InputError(
                f"model: the address of a server must be {FORM} without a user name or password, found one; "
                f"give a key in the environment variable THRESHER_API_KEY"
            )
        if not parts.hostname:
            raise InputError(f"model '{text}': the address of a server must be {FORM}, found no host")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        place = host if port is None else f"{host}:{port}"
        path = parts.path.rstrip("/") or "/v1"
        settings = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in SETTINGS:
                raise SettingsError(
                    f"model: a server has no setting '{name}'; it has: {', '.join(SETTINGS)}"
                    f"{did_you_mean(name, SETTINGS)}"
                )
            settings[SETTINGS[name]] = _number(name, value)
        return cls(
            url=f"{parts.scheme.lower()}://{place}{path}",
            model=unquote(parts.fragment) or None,
            timeout_s=float(settings.pop("timeout_s", cls.timeout_s)),
            **settings,
        )


def _number(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"model: the server setting {name} must be a whole number of at least 1, got '{text}'")
    return int(text)


def is_server(model: str | None) -> bool:
    """Tell whether the name of a model is the address of a server."""
    return model is not None and model.lower().startswith(SCHEMES)
