"""Notifications of the end of a run: webhook and Prometheus textfile. They never fail the run."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import write_atomic
from thresher.errors import SettingsError
from thresher.jobs.settings import Notify
from thresher.jobs.sources.addresses import Addresses, redact_address

FAILURES = ("gate", "error", "bug", "interrupted")
PAUSE_S = 1.0


def should_notify(notify: Notify, outcome: str) -> bool:
    """Tell whether the webhook is to be called for an outcome."""
    if notify.on == "always":
        return True
    return outcome in FAILURES or (notify.on == "change" and outcome == "done")


def post_webhook(notify: Notify, payload: Mapping[str, Any], addresses: Addresses) -> dict[str, Any]:
    """Call the webhook, and return what came of it for the history."""
    if notify.webhook is None:
        raise AssertionError("no webhook")
    entry: dict[str, Any] = {"webhook": redact_address(notify.webhook, only_host=True), "attempts": 0}
    try:
        url = addresses.resolve(notify.webhook, where="notify.webhook")
        if not url.startswith(("http://", "https://")):
            raise SettingsError("notify.webhook: must begin with http:// or https://; give such an address")
    except SettingsError as error:
        return entry | {"error": addresses.redact(str(error))}
    body = json.dumps(payload, ensure_ascii=False).encode()
    for attempt in range(1 + notify.retries):
        entry["attempts"] = attempt + 1
        answer = _post_once(url, body, notify.timeout_s)
        if isinstance(answer, int) and answer < 300:
            return entry | {"status": answer}
        entry["error"] = addresses.redact(_describe_status(answer) if isinstance(answer, int) else answer)[:500]
        if isinstance(answer, int) and answer < 500 and answer != 429:
            return entry  # the next attempt would fare no better
        if attempt < notify.retries:
            time.sleep(PAUSE_S * 2**attempt)
    return entry


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect unfollowed: the payload is for the address in the job file and no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _describe_status(status: int) -> str:
    return f"HTTP {status}: a redirect, which is not followed" if status < 400 else f"HTTP {status}"


def _post_once(url: str, body: bytes, timeout_s: float) -> int | str:
    """Return the status that a POST was answered with, or what went wrong within the time limit.

    A socket's own limit holds for each byte, and for no name look-up: a server that drips would
    hold the job's lock.
    """
    answers: list[int | str] = []

    def attempt() -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "thresher"}
        try:
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            with _OPENER.open(request, timeout=timeout_s) as answer:
                answers.append(answer.status)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
            error.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            answers.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else f"no answer within {timeout_s:g} s"


def write_metrics(path: Path, job: str, metrics: Mapping[str, tuple[str, float]]) -> dict[str, Any]:
    """Write a textfile for Prometheus' node exporter; return what came of it for the history."""
    lines, described = [], set()
    for name, (what, value) in metrics.items():
        bare, brace, labels = name.partition("{")
        if bare not in described:
            lines += [f"# HELP thresher_{bare} {what}", f"# TYPE thresher_{bare} gauge"]
            described.add(bare)
        more = f",{labels.removesuffix('}')}" if brace else ""
        lines.append(f'thresher_{bare}{{job_name="{job}"{more}}} {value:.15g}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        return {"prometheus": path.name, "error": error.strerror or str(error)}
    return {"prometheus": path.name}
