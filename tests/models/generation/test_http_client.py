"""When requests are sent again, and how a pause ends."""

import threading
import time
from email.utils import formatdate

import pytest

from thresher.models.generation.http_client import Pace, parse_retry_delay


def test_retry_after_is_read_as_seconds_and_as_a_date():
    now = 1_800_000_000.0
    assert parse_retry_delay({"retry-after": "2.5"}, now=now) == 2.5
    assert parse_retry_delay({"retry-after": formatdate(now + 30, usegmt=True)}, now=now) == pytest.approx(30)
    assert parse_retry_delay({"retry-after": formatdate(now - 30, usegmt=True)}, now=now) == 0
    assert parse_retry_delay({"retry-after": "soon"}, now=now) is None
    assert parse_retry_delay({}, now=now) is None


def test_a_stop_ends_all_waiting():
    pace = Pace(None)
    pace.pause(60)
    threading.Timer(0.05, pace.stop).start()
    start = time.monotonic()
    assert not pace.wait()
    assert time.monotonic() - start < 5
