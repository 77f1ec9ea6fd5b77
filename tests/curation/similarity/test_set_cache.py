"""Sets of shingles that are made again, pieces of a pool, and the memory plan."""

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.curation.rules import near_duplicates
from thresher.curation.rules.near_duplicates import NearDuplicates
from thresher.curation.similarity import set_cache
from thresher.curation.similarity.own_rows import OwnRows
from thresher.curation.similarity.set_cache import build_set_cache, read_set
from thresher.curation.similarity.shingles import build_shingles, pack_texts
from thresher.dataset.own_text import words as own_words
from thresher.errors import InputError


def random_texts(n, rng):
    letters = np.array(list("abcdé漢😀 "))
    return ["".join(rng.choice(letters, size)) for size in rng.integers(0, 60, n)]


@pytest.mark.parametrize("shape", [(5, False), (2, True)])
def test_sets_read_in_any_order_are_those_of_the_texts(monkeypatch, shape):
    monkeypatch.setattr(set_cache, "ROW_BYTES", 0)
    monkeypatch.setattr(set_cache, "MIN_KEPT", 1)
    rng = np.random.default_rng(3)
    texts = pl.Series(random_texts(80, rng))
    packed, starts, ends = pack_texts(texts)
    empty = np.zeros(0, np.int64)
    rows = OwnRows(packed, starts, ends, empty, np.zeros(0, np.uint32), empty, empty, empty, np.zeros(0, np.bool_))
    expected = build_shingles(texts, n=shape[0], unit="word" if shape[1] else "character")
    sets = build_set_cache(rows, shape, expected.sizes()[:40])
    assert len(sets.ring) < len(packed) // 10, "most sets must be made again"
    for item in rng.integers(0, 80, 2000).tolist():
        theirs = expected.hashes[expected.offsets[item] : expected.offsets[item + 1]]
        assert read_set(item, sets).tolist() == theirs.tolist()


def instruction_rows(n, rng):
    """Rows with copies, templates, long answers behind a shared beginning, and other answers."""
    words = ["".join(rng.choice(list("abcdefghéßж"), 5)) for _ in range(400)]
    rows = []
    for i in range(n):
        if i % 3 == 2:
            row = dict(rows[rng.integers(len(rows))])
            parts = row["prompt"].split(" ")
            parts[rng.integers(len(parts))] = str(rng.choice(words))
            row["prompt"] = " ".join(parts)
            if i % 2:
                row["completion"] += f" {i}"
        else:
            head = "Answer the question below in your own words. " if i % 2 else ""
            reply = "Thank you for asking, here is what I know. " if i % 4 < 2 else ""
            row = {
                "prompt": head + " ".join(rng.choice(words, 40)),
                "completion": reply + " ".join(rng.choice(words, 30)),
            }
        rows.append(row)
    return rows


def test_pieces_and_small_caches_change_nothing(monkeypatch):
    pool = th.load(pl.DataFrame(instruction_rows(300, np.random.default_rng(5))))
    whole = th.curate(pool, ["near-duplicates"])
    monkeypatch.setattr(own_words, "CHUNK_BYTES", 2_000)
    monkeypatch.setattr(set_cache, "ROW_BYTES", 0)
    monkeypatch.setattr(set_cache, "MIN_KEPT", 1)
    monkeypatch.setattr(near_duplicates, "DIGEST_ROWS", 7)
    parts = th.curate(pool, ["near-duplicates"])
    assert 20 < whole.dropped.height < 150
    assert whole.dropped.equals(parts.dropped)
    (one,), (other,) = (each.manifest.content["rules"] for each in (whole, parts))
    assert one["notes"] == other["notes"]
    assert one["notes"]["rows_with_other_answers"] > 10


def test_the_plan_is_told_first_and_what_does_not_fit_is_refused(monkeypatch):
    pool = th.load(pl.DataFrame({"text": [f"{i} " + "word " * 50 for i in range(100)]}))
    assert NearDuplicates().describe_plan(pool, None) is None, "a small pool needs no plan"
    monkeypatch.setattr(near_duplicates, "PLANNED_BYTES", 0)
    monkeypatch.setattr(near_duplicates, "available_bytes", lambda: 10**9)
    notes = []
    th.curate(pool, ["near-duplicates"], on_progress=lambda progress: notes.append(progress.note))
    assert notes[0].startswith("near-duplicates: 100 rows with 25.3 kB of text, about ")
    monkeypatch.setattr(near_duplicates, "available_bytes", lambda: 10**6)
    with pytest.raises(
        InputError, match=r"^near-duplicates: 100 rows .* of memory and 1.0 MB are free; clean the pool"
    ):
        th.curate(pool, ["near-duplicates"])
