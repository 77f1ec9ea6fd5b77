"""How much memory is free, and what collections of garbage look at."""

import gc
import weakref

import pytest

from thresher.numeric import memory


def test_the_smaller_of_machine_and_control_group_counts(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_bytes() == 2_048_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert memory.available_bytes() == 2_048_000
    (tmp_path / "memory.max").write_text("1500\n")
    assert memory.available_bytes() == 1000
    # cached files (90 + 110) count as available
    (tmp_path / "memory.stat").write_text("anon 200\nactive_file 90\ninactive_file 110\n")
    assert memory.available_bytes() == 1200
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    (tmp_path / "memory.max").unlink()
    assert memory.available_bytes() is None


@pytest.fixture
def unfrozen(monkeypatch):
    """Undo what `conftest.py` has frozen, for one test."""
    monkeypatch.setattr(memory, "_is_frozen_for_good", False)
    gc.unfreeze()
    yield
    gc.freeze()


class Node:
    """An object that refers to itself, which only a collection frees."""

    def __init__(self):
        self.me = self


def test_collections_free_what_is_new_and_leave_what_is_older_for_later(unfrozen):
    assert gc.get_freeze_count() == 0
    older = weakref.ref(Node())
    with memory.collect_only_new():
        newer = weakref.ref(Node())
        gc.collect()
        assert newer() is None
        assert older() is not None
        with memory.collect_only_new():
            assert gc.get_freeze_count()
        assert gc.get_freeze_count()  # still, within the outer one
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert older() is None


def test_what_a_program_has_frozen_stays_so(unfrozen):
    gc.freeze()
    with memory.collect_only_new():
        pass
    assert gc.get_freeze_count()
    gc.unfreeze()


def test_what_is_frozen_for_good_is_not_counted_each_time(unfrozen, monkeypatch):
    memory.freeze_for_good()
    monkeypatch.setattr(gc, "get_freeze_count", lambda: pytest.fail("counted"))
    monkeypatch.setattr(gc, "unfreeze", lambda: pytest.fail("unfrozen"))
    with memory.collect_only_new():
        pass
