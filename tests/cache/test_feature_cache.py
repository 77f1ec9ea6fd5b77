import os
import time

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thresher.cache.feature_cache import STALE_S, FeatureCache
from thresher.cache.keys import text_keys
from thresher.errors import OutputError, SettingsError


def as_keys(raw: list[bytes]) -> np.ndarray:
    return np.array(raw, dtype="S16")


def read_all(partition, wanted: list[bytes]) -> tuple[dict[bytes, float], list]:
    """Return what the partition knows of the wanted keys, and the damaged chunks it met."""
    ordered = np.unique(as_keys(wanted))
    damaged, found = [], {}
    for positions, values in partition.read(ordered, on_damage=damaged.append):
        for position, value in zip(positions, values, strict=True):
            key = ordered[position].ljust(16, b"\0")
            assert key not in found
            found[key] = float(value.flat[0])
    return found, damaged


# Few distinct bytes, zero among them: keys that share beginnings and ends, where a string
# comparison could go wrong.
raw_keys = st.lists(st.sampled_from([0, 1, 255]), min_size=16, max_size=16).map(bytes)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.lists(raw_keys, min_size=1, max_size=8), max_size=4), wanted=st.lists(raw_keys, min_size=1))
def test_read_gives_exactly_what_was_written(tmp_path_factory, chunks, wanted):
    partition = FeatureCache(tmp_path_factory.mktemp("c")).partition("f", "m", "abc")
    written = {}
    for chunk in chunks:
        values = [float(int.from_bytes(key) % 1009) for key in chunk]
        partition.write(as_keys(chunk), np.array(values))
        written |= dict(zip(chunk, values, strict=True))
    found, damaged = read_all(partition, wanted)
    assert found == {key: written[key] for key in set(wanted) & set(written)}
    assert damaged == []


def test_a_key_is_the_xxh3_128_of_the_text():
    texts = ["", "a", "日本", "x" * 10_000]
    assert [key.ljust(16, b"\0") for key in text_keys(texts)] == [xxhash.xxh3_128(t.encode()).digest() for t in texts]


def test_two_models_and_two_features_do_not_see_each_other(cache):
    cache.partition("embedding", "m", "one").write(as_keys([b"k" * 16]), np.ones(1))
    assert read_all(cache.partition("embedding", "m", "two"), [b"k" * 16]) == ({}, [])
    assert read_all(cache.partition("length", "m", "one"), [b"k" * 16]) == ({}, [])


def damage_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def damage_first_key(content: bytes) -> bytes:
    at = content.index(b"k" * 16)
    return content[:at] + b"K" + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        damage_last_byte,
        damage_first_key,
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"\xff" * len(content),
        lambda content: content.replace(b"_xxh3", b"_xxh4"),
    ],
    ids=["value", "key", "cut", "empty", "garbage", "no checksum"],
)
def test_a_damaged_chunk_is_reported_and_deleted_and_never_read(cache, damage):
    partition = cache.partition("embedding", "m", "abc")
    keys = [b"k" * 16, b"j" * 16]
    bad = partition.write(as_keys(keys), np.array([1.0, 2.0]))
    partition.write(as_keys([b"i" * 16]), np.array([3.0]))
    bad.write_bytes(damage(bad.read_bytes()))
    found, damaged = read_all(partition, [*keys, b"i" * 16])
    assert found == {b"i" * 16: 3.0}
    assert damaged == [bad]
    assert not bad.exists()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    partition = FeatureCache(tmp_path / "file" / "cache").partition("embedding", "m", "abc")
    with pytest.raises(OutputError, match=r"cache: the feature cache must be writable.*THRESHER_CACHE"):
        partition.write(as_keys([b"k" * 16]), np.ones(1))


def test_a_chunk_that_cannot_be_read_is_one_clear_error(cache):
    partition = cache.partition("embedding", "m", "abc")
    # even root cannot read a folder as a file
    (partition.folder / "chunk-1-folder.safetensors").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"a chunk of the feature cache must be readable.*THRESHER_CACHE"):
        read_all(partition, [b"k" * 16])


def test_a_full_disk_leaves_no_partial_file(cache, monkeypatch):
    partition = cache.partition("embedding", "m", "abc")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        partition.write(as_keys([b"k" * 16]), np.ones(1))
    assert list(partition.folder.iterdir()) == []


def write_aged(partition, key: bytes, *, days: float) -> None:
    path = partition.write(as_keys([key * 16]), np.ones((1, 100)))
    then = time.time() - days * 86_400
    os.utime(path, (then, then))


def test_prune_deletes_the_least_recently_used_first(cache):
    partition = cache.partition("embedding", "m", "abc")
    for key, days in ((b"a", 3), (b"b", 1), (b"c", 2)):
        write_aged(partition, key, days=days)
    total = cache.entries()[0].bytes
    freed = cache.prune(max_bytes=total - 1)
    assert freed == pytest.approx(total / 3, abs=2)
    assert set(read_all(partition, [b"a" * 16, b"b" * 16, b"c" * 16])[0]) == {b"b" * 16, b"c" * 16}


def test_reading_a_chunk_makes_it_recently_used(cache):
    partition = cache.partition("embedding", "m", "abc")
    write_aged(partition, b"a", days=3)
    write_aged(partition, b"b", days=2)
    read_all(partition, [b"a" * 16])
    cache.prune(older_than_days=1)
    assert set(read_all(partition, [b"a" * 16, b"b" * 16])[0]) == {b"a" * 16}


def test_prune_by_age_keeps_what_was_used_since(cache):
    partition = cache.partition("embedding", "m", "abc")
    write_aged(partition, b"a", days=10)
    write_aged(partition, b"b", days=0)
    assert cache.prune(older_than_days=5) > 0
    assert set(read_all(partition, [b"a" * 16, b"b" * 16])[0]) == {b"b" * 16}


def test_prune_to_nothing_empties_the_store(cache):
    write_aged(cache.partition("embedding", "m", "abc"), b"a", days=0)
    stored = cache.entries()[0].bytes
    assert cache.prune(max_bytes=0) == stored
    assert cache.entries() == []


def test_prune_clears_up_after_killed_writers_but_not_after_live_ones(cache):
    partition = cache.partition("embedding", "m", "abc")
    partition.write(as_keys([b"k" * 16]), np.ones(1))
    dead, live = partition.folder / ".writing-dead", partition.folder / ".writing-live"
    for path in (dead, live):
        path.write_bytes(b"12345")
    then = time.time() - STALE_S - 60
    os.utime(dead, (then, then))
    assert cache.prune(max_bytes=10**9) == 5
    assert not dead.exists()
    assert live.exists()


@pytest.mark.parametrize("wrong", [{}, {"max_bytes": -1}, {"older_than_days": -0.5}])
def test_prune_without_a_sensible_limit_is_refused(cache, wrong):
    with pytest.raises(SettingsError, match="prune needs max_bytes or older_than_days"):
        cache.prune(**wrong)


def test_entries_count_rows_and_bytes_per_model(cache):
    cache.partition("embedding", "a model/name", "one").write(as_keys([b"k" * 16, b"j" * 16]), np.ones((2, 3)))
    cache.partition("embedding", "a model/name", "one").write(as_keys([b"i" * 16]), np.ones((1, 3)))
    cache.partition("length", "t", "two").write(as_keys([b"k" * 16]), np.ones(1))
    entries = {entry.feature: entry for entry in cache.entries()}
    assert entries["embedding"].n_rows == 3
    assert (entries["embedding"].model, entries["embedding"].fingerprint) == ("a model/name", "one")
    assert sum(entry.bytes for entry in entries.values()) == sum(
        path.stat().st_size for path in cache.root.rglob("*") if path.is_file()
    )


def test_the_store_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "here"))
    assert FeatureCache().root == tmp_path / "here"
    monkeypatch.delenv("THRESHER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert FeatureCache().root == tmp_path / "xdg" / "thresher"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("THRESHER_CACHE", "~/below")
    assert FeatureCache().root == tmp_path / "below"


def test_a_relative_cache_is_one_folder_wherever_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THRESHER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert FeatureCache().root == tmp_path / "xdg" / "thresher"


def test_a_home_folder_that_nobody_knows_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(SettingsError, match="'~nobody-of-this-name/cache' must lie below a home folder that is known"):
        FeatureCache()


@pytest.mark.parametrize("text", ["lots", "-1", "inf", "nan"])
def test_a_bound_that_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv("THRESHER_CACHE_MAX_GB", text)
    with pytest.raises(SettingsError, match=f"THRESHER_CACHE_MAX_GB must be a number of GB, 0 or more, got '{text}'"):
        FeatureCache()


def test_the_bound_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE_MAX_GB", "0.5")
    assert FeatureCache().max_bytes == 500_000_000
