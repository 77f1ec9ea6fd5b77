import ast
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from thresher.artifacts import folder as output
from thresher.artifacts.exchange import exchange_folders
from thresher.artifacts.folder import MANIFEST, OutputFolder, read_identity, write_atomic
from thresher.errors import OutputError, find_exit_code


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


def test_a_file_that_a_killed_run_was_writing_is_no_part_of_the_result(tmp_path):
    with OutputFolder(tmp_path / "out", identity="one") as out:
        (out.work / f".b.json.tmp{'0' * 32}").write_text("half")
        (out.work / "inside").mkdir()
        (out.work / "inside" / f".c.json.tmp{'f' * 32}").write_text("half")
        (out.work / "inside" / ".tmpfile").write_text("of the user")
    make(tmp_path / "out")
    assert names(tmp_path / "out") == ["file.txt", "inside", MANIFEST]
    assert names(tmp_path / "out" / "inside") == [".tmpfile"]


def test_a_run_that_fails_before_it_writes_anything_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no rows"), OutputFolder(tmp_path / "out", identity="one"):
        raise ValueError("no rows")
    assert names(tmp_path) == []


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


def test_a_place_where_a_file_system_is_mounted_is_refused_for_good(tmp_path, monkeypatch):
    """As a volume of a container: it can be neither renamed nor deleted, however long one waits."""
    out = tmp_path / "out"
    out.mkdir()

    def refuse(path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    monkeypatch.setattr(Path, "rmdir", refuse)
    with pytest.raises(OutputError, match=r"is mounted; choose a new folder in it, such as .*out/result") as raised:
        OutputFolder(out, identity="a").__enter__()
    assert find_exit_code(raised.value) == 2


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


@pytest.mark.parametrize("function", ["write_parquet", "write_csv", "write_ndjson", "write_array"])
def test_no_room_for_a_table_is_an_error_with_its_number(tmp_path, function):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    table = pl.DataFrame({"number": np.random.default_rng(0).random(9999)})
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            getattr(output, function)(table.to_numpy() if function == "write_array" else table, tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(tmp_path / "x")


def test_an_array_is_read_as_it_was_written(tmp_path):
    for array in (np.arange(12.0).reshape(3, 4).T, np.zeros((0, 3), np.float32), np.arange(5, dtype=np.int16)[::2]):
        output.write_array(array, tmp_path / "a.npy")
        assert np.array_equal(np.load(tmp_path / "a.npy"), array)


def test_arrays_are_written_in_one_way_only():
    """`np.save` into a file, and `tofile`, end on a full disk with an OSError without a number."""
    for path in sorted(Path(output.__file__).parents[1].rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and path != Path(output.__file__):
                name = ast.unparse(node.func)
                assert not name.endswith(("np.save", "np.savez", "np.savez_compressed", ".tofile")), (path, node.lineno)


def write_result(folder, identity):
    (folder / "manifest.json").write_text(json.dumps({"identity": identity}))


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_old_result_stays_when_the_new_one_cannot_take_its_place(tmp_path, can_exchange, number, monkeypatch):
    out = tmp_path / "out"
    with OutputFolder(out, identity="old") as folder:
        folder.publish_files(lambda work: write_result(work, "old"))
    if not can_exchange:
        monkeypatch.setattr("thresher.artifacts.folder.exchange_folders", lambda *_: False)
    rename, calls = Path.rename, []

    def refuse(path, target):
        calls.append(target)
        if target == out and len(calls) < 3:
            raise OSError(number, os.strerror(number), str(path))
        return rename(path, target)

    with monkeypatch.context() as patched:
        if can_exchange:
            patched.setattr("thresher.artifacts.folder.exchange_folders", lambda *_: refuse(out, out))
        patched.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="out"), OutputFolder(out, identity="new", force=True) as folder:
            folder.publish_files(lambda work: write_result(work, "new"))
    assert read_identity(out) == "old"
    with OutputFolder(out, identity="new", force=True) as folder:
        folder.publish_files(lambda work: write_result(work, "new"))
    assert read_identity(out) == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_old_result_and_a_new_one_exchange_places_in_one_step(tmp_path, monkeypatch):
    """Killed right after it, the next run deletes what was replaced."""
    out = tmp_path / "out"
    with OutputFolder(out, identity="old") as folder:
        folder.publish_files(lambda work: write_result(work, "old"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    if not exchange_folders(tmp_path / "a", tmp_path / "b"):
        pytest.skip("the file system cannot let two folders exchange places")
    (tmp_path / "a").rmdir()
    (tmp_path / "b").rmdir()

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", kill)
        with pytest.raises(KeyboardInterrupt), OutputFolder(out, identity="new", force=True) as folder:
            folder.publish_files(lambda work: write_result(work, "new"))
    assert read_identity(out) == "new"
    with OutputFolder(out, identity="new", force=True) as folder:
        assert folder.is_done
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_was_replaced_is_put_back_by_its_own_run_only(tmp_path, monkeypatch):
    """Killed right after the exchange, the old result lies where work in progress does."""
    out = tmp_path / "out"
    with OutputFolder(out, identity="old") as folder:
        folder.publish_files(lambda work: write_result(work, "old"))

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", kill)
        with pytest.raises(KeyboardInterrupt), OutputFolder(out, identity="new", force=True) as folder:
            folder.publish_files(lambda work: write_result(work, "new"))
    for identity in ("old", "other"):
        with pytest.raises(OutputError, match="--force"), OutputFolder(out, identity=identity):
            pass
        with OutputFolder(out, identity=identity, force=True) as folder:
            if not folder.is_done:
                folder.publish_files(lambda work, identity=identity: write_result(work, identity))
        assert read_identity(out) == identity
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("target", ["empty", "result", "missing"])
def test_the_target_of_a_link_is_written_and_the_link_stays(tmp_path, target):
    out, real = tmp_path / "out", tmp_path / "disk" / "real"
    real.parent.mkdir()
    if target == "empty":
        real.mkdir()
    elif target == "result":
        with OutputFolder(real, identity="first") as folder:
            folder.publish_files(lambda work: write_result(work, "first"))
    out.symlink_to(real)
    for identity in ("second", "third"):
        with OutputFolder(out, identity=identity, force=target == "result" or identity == "third") as folder:
            folder.publish_files(lambda work, identity=identity: write_result(work, identity))
        assert read_identity(out) == identity
    assert out.is_symlink()
    assert sorted(path.name for path in [*tmp_path.iterdir(), *real.parent.iterdir()]) == ["disk", "out", "real"]


def test_a_link_that_an_earlier_version_put_aside_is_deleted(tmp_path):
    out = tmp_path / "out"
    with OutputFolder(out, identity="a") as folder:
        folder.publish_files(lambda work: write_result(work, "a"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.old").symlink_to(tmp_path / "elsewhere")
    with OutputFolder(out, identity="a") as folder:
        assert folder.is_done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]
