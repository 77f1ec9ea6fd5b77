"""Finished folders: made once, held while they are read, and deleted whole."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from thresher.artifacts.folder import OutputFolder
from thresher.cache.folder_cache import FolderCache


@pytest.fixture
def store(tmp_path):
    return FolderCache("things", tmp_path)


def make_writer(key):
    def write(work):
        (work / "content").write_text(key)
        (work / "manifest.json").write_text(json.dumps({"identity": key}))

    return write


def test_a_folder_that_is_held_is_not_pruned_and_afterwards_it_is(store):
    with store.hold("a", make_writer("a")) as folder, store.hold("a", make_writer("a")):
        store.make("b", make_writer("b"))
        assert store.prune(max_bytes=0) > 0
        assert (folder / "content").read_text() == "a"
        assert not store.has("b")
    assert store.prune(max_bytes=0) > 0
    assert not store.has("a")
    assert list(store.root.iterdir()) == []


def test_another_process_that_holds_a_folder_is_respected_until_it_dies(store, tmp_path):
    store.make("a", make_writer("a"))
    code = f"""
        import sys
        from thresher.cache.folder_cache import FolderCache
        with FolderCache("things", {str(tmp_path)!r}).hold("a", None):
            print("held", flush=True)
            sys.stdin.read()
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "held\n"
        assert store.prune(max_bytes=0) == 0
        assert store.has("a")
        reader.kill()
        reader.wait()
    assert store.prune(max_bytes=0) > 0
    assert not store.has("a")


def test_a_prune_that_is_killed_leaves_no_half_of_a_folder(store, monkeypatch):
    """The manifest stayed when other files were gone already: the folder counted as finished."""
    store.make("a", make_writer("a"))

    def killed(folder, **_):
        (folder / "content").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.prune(max_bytes=0)
    monkeypatch.undo()
    assert not store.has("a")
    store.prune(max_bytes=10**9)
    assert list(store.root.iterdir()) == []


def test_a_folder_that_was_pruned_while_it_was_waited_for_is_made_again(store, monkeypatch):
    made = []
    make = store.make

    def made_and_pruned(key, write):
        made.append(key)
        folder = make(key, write)
        if len(made) == 1:
            store.prune(max_bytes=0)
        return folder

    monkeypatch.setattr(store, "make", made_and_pruned)
    with store.hold("a", make_writer("a")) as folder:
        assert (folder / "content").is_file()
    assert made == ["a", "a"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user who can be refused")
def test_a_cache_that_cannot_be_written_can_be_held(store):
    store.make("a", make_writer("a"))
    store.root.chmod(0o555)
    try:
        with store.hold("a", make_writer("a")) as folder:
            assert (folder / "content").is_file()
    finally:
        store.root.chmod(0o755)


def test_a_folder_that_another_process_prunes_at_the_same_time_is_passed_over(store, monkeypatch):
    """Folders were listed first and their times read later: a traceback instead of a prune."""
    for key in "ab":
        store.make(key, make_writer(key))
    listed = [*store._folders()]
    shutil.rmtree(store.folder("a"))
    monkeypatch.setattr(store, "_folders", lambda: listed)
    assert store.prune(max_bytes=0) > 0
    assert not store.has("b")


def test_a_prune_passes_over_files_that_a_running_training_deletes(store, monkeypatch):
    """`thresher cache prune` beside an experiment counts a folder where checkpoints come and go."""
    store.make("a", make_writer("a"))
    work = store.root / ".b.partial"
    work.mkdir()
    walk, stat = os.walk, os.stat

    def deleted_when_listed(folder):
        for inside, folders, names in walk(folder):
            (work / "listed").unlink(missing_ok=True)
            yield inside, folders, names

    def deleted_when_read(path, **how):
        found = stat(path, **how)
        if str(path).endswith("looked-at"):
            os.unlink(path)
        return found

    monkeypatch.setattr(os, "walk", deleted_when_listed)
    monkeypatch.setattr(os, "stat", deleted_when_read)
    with OutputFolder(store.folder("b"), identity="b"):  # the training that is at it
        (work / "listed").write_text("1")
        (work / "looked-at").write_text("1")
        assert store.prune(max_bytes=0) > 0
        assert work.is_dir()
