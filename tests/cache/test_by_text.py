import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from thresher.cache import by_text
from thresher.cache.batch import Batch
from thresher.cache.by_text import compute_cached
from thresher.features import FeatureCache


def slow_reference(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode()) % 97)]


class Counting:
    """A model that keeps what it was asked, and answers in reverse order in small batches."""

    def __init__(self, size: int = 7) -> None:
        self.seen: list[str] = []
        self.size = size

    def __call__(self, texts):
        self.seen += texts.to_list()
        rows = np.arange(len(texts))[::-1]
        for start in range(0, len(rows), self.size):
            part = rows[start : start + self.size]
            yield Batch(part, np.array([slow_reference(texts[int(row)]) for row in part], dtype=np.float32))


def run(texts, model, cache=None, on_progress=None):
    partition = None if cache is None else cache.partition("embedding", "m", "abc")
    return compute_cached(
        pl.Series(texts, dtype=pl.String), model, feature="embedding", partition=partition, on_progress=on_progress
    )


def expected(texts):
    return np.array([slow_reference(text) for text in texts], dtype=np.float32)


@pytest.fixture
def pool(make_sentences):
    return make_sentences(500)


def test_values_stand_in_the_order_of_the_texts_with_and_without_the_cache(pool, cache):
    np.testing.assert_array_equal(run(pool, Counting()), expected(pool))
    np.testing.assert_array_equal(run(pool, Counting(), cache), expected(pool))
    shuffled = list(np.random.default_rng(1).permutation(pool))
    np.testing.assert_array_equal(run(shuffled, Counting(), cache), expected(shuffled))


def test_no_texts_have_no_values(cache):
    assert run([], Counting(), cache) is None


def test_a_repeated_text_is_computed_once(pool, cache):
    model = Counting()
    texts = pool[:50] * 3 + ["", ""]
    np.testing.assert_array_equal(run(texts, model, cache), expected(texts))
    assert sorted(model.seen) == sorted([*pool[:50], ""])


def test_a_second_run_computes_nothing(pool, cache):
    run(pool, Counting(), cache)
    model = Counting()
    np.testing.assert_array_equal(run(pool, model, cache), expected(pool))
    assert model.seen == []


def test_a_pool_with_one_percent_new_rows_computes_exactly_these(pool, cache):
    run(pool, Counting(), cache)
    added = [f"new {i}" for i in range(5)]
    mixed = [*pool[:100], *added[:2], *pool[100:], *added[2:]]
    model = Counting()
    np.testing.assert_array_equal(run(mixed, model, cache), expected(mixed))
    assert sorted(model.seen) == added


def test_rows_of_a_damaged_chunk_are_computed_again_and_the_damage_is_told(pool, cache, monkeypatch):
    monkeypatch.setattr(by_text, "CHUNK_ROWS", 100)
    run(pool, Counting(), cache)
    chunk = max(cache.root.rglob("chunk-*"))
    n_lost = int(chunk.name.split("-")[1])
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 255
    chunk.write_bytes(content)
    model, events = Counting(), []
    np.testing.assert_array_equal(run(pool, model, cache, events.append), expected(pool))
    assert len(model.seen) == n_lost
    assert [event.note for event in events if event.note] == [
        f"{chunk}: this cache chunk was damaged; it was deleted and its rows are computed again"
    ]
    assert run(pool, model := Counting(), cache) is not None
    assert model.seen == []


def test_progress_counts_every_distinct_row_once(pool, cache):
    run(pool[:200], Counting(), cache)
    events = []
    run(pool * 2, Counting(), cache, events.append)
    assert (events[0].done, events[0].n_cached) == (200, 200)
    assert (events[-1].done, events[-1].total, events[-1].n_cached) == (500, 500, 200)
    assert [event.done for event in events] == sorted(event.done for event in events)


def test_the_store_stays_below_its_bound(tmp_path, pool, monkeypatch):
    monkeypatch.setattr(by_text, "CHUNK_ROWS", 50)
    cache = FeatureCache(tmp_path / "small", max_bytes=5_000)
    np.testing.assert_array_equal(run(pool, Counting(), cache), expected(pool))
    assert 0 < sum(entry.bytes for entry in cache.entries()) <= 5_000


def test_a_model_that_forgets_a_text_is_our_bug(pool):
    with pytest.raises(AssertionError, match="1 texts got no value"):
        run(pool[:8], lambda texts: iter([Batch(np.arange(7), np.ones((7, 2)))]))


SCRIPT = """
import sys, time
import numpy as np, polars as pl
from thresher.cache import by_text
from thresher.cache.by_text import Batch, compute_cached
from thresher.cache.feature_cache import FeatureCache
by_text.CHUNK_ROWS = 10
def model(texts):
    for start in range(0, len(texts), 5):
        time.sleep({pause})
        part = texts[start:start + 5].to_list()
        values = [[float(len(t)), float(sum(t.encode()) % 97)] for t in part]
        yield Batch(np.arange(start, start + len(part)), np.array(values, dtype=np.float32))
texts = pl.Series(sys.stdin.read().split("\\n"))
partition = FeatureCache(sys.argv[1]).partition("embedding", "m", "abc")
values = compute_cached(texts, model, feature="embedding", partition=partition, on_progress=None)
sys.stdout.write(str(float(values.sum())))
"""


def start(texts, root, *, pause):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(pause=pause), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write("\n".join(texts))
    process.stdin.close()
    process.stdin = None  # so that communicate() does not flush it
    return process


def test_a_killed_run_loses_at_most_the_chunk_in_flight(pool, cache):
    process = start(pool, cache.root, pause=0.02)
    deadline = time.monotonic() + 60
    while len(list(cache.root.rglob("chunk-*"))) < 4:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    n_stored = sum(entry.n_rows for entry in cache.entries())
    assert 40 <= n_stored < len(pool)
    model = Counting()
    np.testing.assert_array_equal(run(pool, model, cache), expected(pool))
    assert len(model.seen) == len(pool) - n_stored


def test_two_processes_may_fill_one_store_at_once(pool, cache):
    both = [start(pool, cache.root, pause=0.001) for _ in range(2)]
    sums = [float(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sums == [float(expected(pool).sum())] * 2
    model = Counting()
    np.testing.assert_array_equal(run(pool, model, cache), expected(pool))
    assert model.seen == []
