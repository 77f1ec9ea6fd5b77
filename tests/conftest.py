"""One temporary feature cache for the whole suite: tests never touch the user's."""

import os
import tempfile

import pytest


@pytest.fixture(scope="session", autouse=True)
def session_cache():
    with tempfile.TemporaryDirectory(prefix="thresher-test-cache-") as folder:
        os.environ["THRESHER_CACHE"] = folder
        yield
        del os.environ["THRESHER_CACHE"]
