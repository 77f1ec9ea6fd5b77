import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from thresher.artifacts import folder as output
from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.errors import OutputError


def make(path, identity="one", text="content", **options):
    with OutputFolder(path, identity=identity, **options) as out:
        if not out.is_done:
            (out.work / "file.txt").write_text(text)
            write_atomic(out.work / MANIFEST, json.dumps({"identity": identity}).encode())
            out.publish()
        return out.is_done


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_result_appears_whole_and_leaves_nothing_beside_it(tmp_path):
    make(tmp_path / "deep" / "out")
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out") == ["file.txt", MANIFEST]


def test_nothing_is_visible_before_publish_and_the_work_is_found_again(tmp_path):
    with OutputFolder(tmp_path / "out", identity="one") as out:
        (out.work / "half.txt").write_text("half")
    assert not (tmp_path / "out").exists()
    with OutputFolder(tmp_path / "out", identity="one") as out:
        assert (out.work / "half.txt").read_text() == "half"


def test_published_files_are_those_written_now_and_a_full_disk_leaves_none(tmp_path):
    def fill_disk(folder):
        (folder / "file.txt").write_text("half")
        raise OSError(errno.ENOSPC, "full")

    with OutputFolder(tmp_path / "out", identity="one") as out:
        (out.work / "half.txt").write_text("of a killed run")
        with pytest.raises(OSError, match="full"):
            out.publish_files(fill_disk)
        assert not out.work.exists()
    with OutputFolder(tmp_path / "out", identity="one") as out:
        (out.work / "half.txt").write_text("of a killed run")
        out.publish_files(lambda folder: (folder / MANIFEST).write_text('{"identity": "one"}'))
    assert names(tmp_path / "out") == [MANIFEST]


def test_work_of_another_identity_is_not_continued(tmp_path):
    with OutputFolder(tmp_path / "out", identity="one") as out:
        (out.work / "half.txt").write_text("half")
    with OutputFolder(tmp_path / "out", identity="two") as out:
        assert not (out.work / "half.txt").exists()


def test_the_same_work_again_finds_it_done(tmp_path):
    assert make(tmp_path / "out") is False
    assert make(tmp_path / "out") is True


def test_a_folder_with_something_else_is_refused_and_untouched(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.tex"):
            make(out, force=force)
    assert names(out) == ["thesis.tex"]
    assert names(tmp_path) == ["out"]


def test_an_earlier_result_is_replaced_only_by_force(tmp_path):
    make(tmp_path / "out", identity="one", text="first")
    with pytest.raises(OutputError, match="must be new or empty.*--force"):
        make(tmp_path / "out", identity="two", text="second")
    assert (tmp_path / "out" / "file.txt").read_text() == "first"
    make(tmp_path / "out", identity="two", text="second", force=True)
    assert (tmp_path / "out" / "file.txt").read_text() == "second"
    assert names(tmp_path) == ["out"]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert (tmp_path / "out" / "file.txt").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="must be a folder, found a file"):
        make(tmp_path / "out")


def test_a_result_lost_between_the_two_renames_comes_back(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    assert make(tmp_path / "out") is True


def test_two_runs_cannot_write_one_folder(tmp_path):
    script = (
        "from thresher.artifacts.folder import OutputFolder; import sys\n"
        "with OutputFolder(sys.argv[1], identity='one'):\n"
        "    print('locked', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(OutputError, match="another run is writing this folder"):
            make(tmp_path / "out")
    finally:
        other.kill()
        other.wait()
        other.stdin.close()
        other.stdout.close()
    make(tmp_path / "out")  # the dead run's lock does not count


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_cannot_be_written_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="parent folder must be writable"):
        make(tmp_path / "out")


def test_a_parent_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --out"):
        make(tmp_path / "file" / "out")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert OutputFolder("~/out", identity="").path == tmp_path / "out"


def test_the_root_of_the_file_system_is_refused():
    with pytest.raises(OutputError, match="a folder of its own"):
        make("/")


@pytest.mark.parametrize("function", ["write_parquet", "write_csv"])
def test_no_room_for_a_table_is_an_error_with_its_number(tmp_path, function):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            getattr(output, function)(pl.DataFrame({"number": np.random.default_rng(0).random(9999)}), tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.EFBIG
