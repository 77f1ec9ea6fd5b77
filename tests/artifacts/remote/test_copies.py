"""Copies of what was read at addresses take room, and give it back."""

import os
import time

import pytest

from thresher.artifacts.remote.copies import measure_copies, prune_copies
from thresher.artifacts.remote.places import find_root


@pytest.fixture
def copies(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    folder, waiting = find_root() / "in/s3/bucket", find_root() / "out/s3/bucket/result.jsonl"
    for path, size in ((folder / "a/old", 100), (folder / "new", 50), (waiting, 70)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    os.utime(folder / "new", (time.time() + 5, time.time()))  # read last
    return folder


def test_the_copy_that_was_not_read_for_longest_goes_first(copies):
    assert measure_copies() == (2, 150)
    assert prune_copies(older_than_days=1) == 0
    assert prune_copies(max_bytes=60) == 100
    assert sorted(path.name for path in copies.rglob("*") if path.is_file()) == ["new"]
    assert prune_copies(max_bytes=0) == 50
    assert measure_copies() == (0, 0)


def test_what_waits_to_be_uploaded_stays(copies):
    prune_copies(max_bytes=0)
    assert (find_root() / "out/s3/bucket/result.jsonl").stat().st_size == 70
