"""Errors of storages behind addresses: one sentence, and an exit code that a scheduler can use."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from thresher.artifacts.remote.address import Address
from thresher.errors import InputError, ThresherError, is_disk_error, is_temporary

# Classes of botocore, aiohttp, google.auth and httpx, none of which may be installed.
_NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"),
    *("UnauthorizedSSOTokenError", "SSOTokenLoadError", "DefaultCredentialsError", "RefreshError", "ProfileNotFound"),
}
_UNREACHABLE = re.compile(r"Timeout|Connect|ServerDisconnected|ClientOSError|ClientPayload|HTTPClientError|SSLError")
_STATUS = re.compile(r"\b(4\d\d|5\d\d)\b")
_SETUP = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "set HF_TOKEN, or run 'hf auth login'",
}
_RIGHTS = {403: "check the rights of these credentials there", 401: "check the credentials"}


@contextmanager
def explain_errors(address: Address) -> Iterator[None]:
    """Turn whatever a storage raises into one sentence.

    Raises:
        InputError: it was refused, is not there, or cannot be reached; where the same may succeed
            later, its cause is an OSError that says so.
    """
    try:
        yield
    except ThresherError:
        raise
    except Exception as error:
        if is_disk_error(error):  # of this machine's disk
            raise
        raise _explain(address, error) from _find_cause(error)


def _explain(address: Address, error: Exception) -> InputError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    setup = _SETUP.get(address.scheme, "give the address of a server that needs none")
    status = _find_status(error)
    if kinds & _NO_CREDENTIALS:
        return InputError(f"{address}: credentials are required, found none that work; {setup}")
    if isinstance(error, FileNotFoundError) or status == 404:
        return InputError(f"{address}: nothing is there (404); check the address")
    if isinstance(error, PermissionError) or status in (401, 403):
        code = status if status in _RIGHTS else 403
        return InputError(f"{address}: access was denied ({code}); {_RIGHTS[code]}, or {setup}")
    if _is_passing(error):
        return InputError(f"{address}: the storage must answer, got '{_say(error)}'; run the same command again later")
    return InputError(f"{address}: the storage must answer, got '{_say(error)}'; check the address and its settings")


def _find_cause(error: Exception) -> Exception:
    """Return the error, or one that tells that the storage may come back."""
    return OSError(errno.ETIMEDOUT, "the storage did not answer") if _is_passing(error) else error


def _is_passing(error: Exception) -> bool:
    if isinstance(error, TimeoutError | ConnectionError) or is_temporary(error):
        return True
    status = _find_status(error)
    return bool(_UNREACHABLE.search(type(error).__name__)) or status in (408, 429) or (status or 0) >= 500


def _find_status(error: Exception) -> int | None:
    """Return the status of HTTP that an error tells of."""
    for holder in (error, vars(error).get("response")):
        for name in ("status", "status_code", "code"):
            value = vars(holder).get(name) if hasattr(holder, "__dict__") else None
            if isinstance(value, int) and 400 <= value < 600:
                return value
    match = _STATUS.search(str(error)) if type(error).__name__ in ("ClientError", "HTTPError", "HttpError") else None
    return None if match is None else int(match[1])


def _say(error: Exception) -> str:
    """Return the first line of an error without queries, which may hold secrets."""
    text = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
    return re.sub(r"(://)[^/@\s]*@|\?[^\s'\"]*", r"\1", text)[:200].rstrip(".")
