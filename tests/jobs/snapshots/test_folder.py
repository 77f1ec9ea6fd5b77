"""Versions, the pointer, and what a killed run leaves behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from thresher.artifacts.manifest import FORMAT
from thresher.errors import ManifestError, OutputError
from thresher.jobs.snapshots.folder import JobFolder
from thresher.jobs.snapshots.seen_ids import delete_unlisted_segments, read_segments, write_segment


def put(folder, version):
    """Publish a snapshot that holds nothing but its manifest."""
    work = folder.create_work(version)
    content = {"format": FORMAT, "kind": "snapshot", "identity": f"i{version}", "version": version}
    (work / "manifest.json").write_text(json.dumps(content))
    return folder.publish(version, check=lambda: None)


@pytest.fixture
def folder(tmp_path):
    folder = JobFolder(tmp_path / "out")
    folder.create()
    return folder


def test_the_pointer_names_the_newest_and_old_ones_are_pruned(folder):
    assert folder.latest() is None
    for version in (1, 2, 3, 4):
        assert folder.next_version() == version
        put(folder, version)
    assert folder.latest().version == 4
    assert folder.prune(2).deleted == [1, 2]
    assert folder.versions() == [3, 4]
    assert (folder.pointer / "manifest.json").is_file()


def test_without_links_the_pointer_is_a_file(folder, monkeypatch):
    def refuse(self, target, target_is_directory=False):
        raise OSError(1, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    put(folder, 1)
    assert not folder.pointer.is_symlink()
    assert folder.pointer.read_text() == "snapshots/v000001"
    assert folder.latest().version == 1


def test_a_kill_between_the_two_renames_is_finished_by_the_next_run(folder, monkeypatch):
    put(folder, 1)
    with monkeypatch.context() as patched:
        patched.setattr(JobFolder, "_point", lambda self, version: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put(folder, 2)
    assert folder.latest().version == 1
    assert folder.recover().version == 2
    assert folder.latest().version == 2
    assert folder.recover().version == 2  # for as long as no run has announced it
    folder.mark_announced(1)  # of another run
    assert folder.recover().version == 2
    folder.mark_announced(2)
    assert not folder.work.exists()
    assert folder.recover() is None


def test_a_pointer_that_the_user_set_back_stays_back(folder):
    put(folder, 1)
    put(folder, 2)
    folder.pointer.unlink()
    folder.pointer.symlink_to("snapshots/v000001")
    assert folder.recover() is None
    assert folder.latest().version == 1
    assert folder.next_version() == 3  # versions never come twice
    assert folder.prune(1).deleted == []  # neither the newest nor the one pointed to


def test_a_pointer_to_nothing_is_an_error(folder):
    put(folder, 1)
    folder.pointer.unlink()
    folder.pointer.symlink_to("snapshots/v000009")
    with pytest.raises(ManifestError, match="found 'v000009'; point it to one of those there \\(v000001\\)"):
        folder.latest()


def test_a_pointer_that_is_gone_is_an_error_and_not_taken_for_a_first_run(folder):
    """A copy without links lost the weights and everything that was known."""
    put(folder, 1)
    folder.pointer.unlink()
    with pytest.raises(ManifestError, match="found nothing; point it to one of those there \\(v000001\\)"):
        folder.latest()


def test_a_first_run_that_was_killed_between_the_two_renames_is_finished(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(JobFolder, "_point", lambda self, version: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put(folder, 1)
    assert folder.latest() is None
    assert folder.recover().version == 1


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    with pytest.raises(OutputError, match="it holds thesis.doc"):
        JobFolder(tmp_path / "out").create()


def test_a_snapshot_that_a_reader_holds_stays_until_it_is_let_go(folder):
    fcntl = pytest.importorskip("fcntl")
    for version in (1, 2, 3):
        put(folder, version)
    with open(folder.snapshot_path(1) / "manifest.json", "rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        pruned = folder.prune(1)
        assert (pruned.deleted, pruned.held) == ([2], [1])
    assert folder.prune(1).deleted == [1]


def test_what_a_reader_on_a_share_keeps_from_being_deleted_is_in_no_later_run_s_way(folder, monkeypatch):
    """A share keeps a deleted file that is open under another name: its folder stays."""

    def stuck(path, ignore_errors=False, **_):
        if not ignore_errors:
            raise OSError(39, "Directory not empty")

    for version in (1, 2, 3):
        put(folder, version)
    monkeypatch.setattr(shutil, "rmtree", stuck)
    with pytest.raises(OSError, match="not empty"):
        folder.prune(2)
    later = JobFolder(folder.path)
    later.recover()
    put(later, 4)
    assert (later.latest().version, later.versions()) == (4, [2, 3, 4])


def test_a_run_that_lost_its_lock_leaves_the_list_that_the_next_one_has_written(folder):
    """It still believes that the version is its own; the next snapshot is not visible yet."""
    known = np.array([b"a" * 16, b"b" * 16])
    entry = write_segment(folder.seen, 2, known)
    stale = write_segment(folder.seen, 1, known[:1])
    delete_unlisted_segments(folder.seen, [], before=2)
    assert read_segments(folder.seen, [entry])[1] == []
    assert len(read_segments(folder.seen, [stale])[1]) == 1


def test_a_run_that_lost_its_lock_cannot_publish_what_the_next_one_is_writing(folder):
    late, other = folder, JobFolder(folder.path)
    late.create_work(1)
    half = other.create_work(1)
    (half / "rows").write_text("half of a snapshot")
    with pytest.raises(FileNotFoundError):
        late.publish(1, check=lambda: None)
    late.discard(1)
    assert (half / "rows").is_file()
    assert folder.versions() == []


def test_a_run_that_lost_its_lock_between_the_two_renames_does_not_turn_the_pointer_back(folder):
    asked = []

    def lost_later():
        asked.append(folder.versions())
        if len(asked) == 2:
            raise OutputError("lost")

    put(folder, 1)
    work = folder.create_work(2)
    content = {"format": FORMAT, "kind": "snapshot", "identity": "i2", "version": 2}
    (work / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(OutputError, match="lost"):
        folder.publish(2, check=lost_later)
    assert asked == [[1], [1, 2]]
    assert folder.latest().version == 1
    assert folder.recover().version == 2  # as the run that took the lock does
