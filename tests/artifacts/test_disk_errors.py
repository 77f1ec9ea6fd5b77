"""Errors of the disk: they name the path, and their exit code says whether to try again."""

import ast
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thresher.artifacts.disk_errors import delete_folder, naming_path, writing_safetensors
from thresher.artifacts.folder import OutputFolder, copy_folder, write_atomic
from thresher.artifacts.scratch import make_scratch_folder
from thresher.cli import main as module
from thresher.errors import InputError, OutputError, find_exit_code, is_storage_error


def run(monkeypatch, error, arguments=("methods",)):
    def fail(_):
        raise error

    monkeypatch.setattr(module, "app", fail)
    return module.main(list(arguments))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, 75) for name in ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN")),
        *((name, 2) for name in ("ENOSPC", "EDQUOT", "EROFS", "ENOTDIR", "ENOENT", "EACCES", "EFBIG")),
    ],
)
def test_what_a_share_refuses_is_one_sentence_with_the_path(name, code, monkeypatch, capsys):
    number = getattr(errno, name)
    assert run(monkeypatch, OSError(number, "as the library says", "/srv/pool/rows.jsonl")) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"thresher: /srv/pool/rows.jsonl: could not be written or read: {os.strerror(number).lower()}"
    )
    assert "run the same command again" in line


def test_another_error_of_the_system_is_still_ours(monkeypatch, capsys):
    assert run(monkeypatch, OSError(errno.EBADF, "bad file descriptor")) == 1
    assert "internal error" in capsys.readouterr().err
    assert not is_storage_error(ValueError("no"))


def test_an_error_of_ours_that_comes_of_a_passing_one_may_be_tried_again():
    def fail(number):
        try:
            raise OSError(number, "away", "rows.jsonl")
        except OSError:
            raise OutputError("out: cannot be written; choose another") from None

    codes = []
    for number in (errno.ESTALE, errno.ENOSPC):
        with pytest.raises(OutputError) as caught:
            fail(number)
        codes.append(find_exit_code(caught.value))
    assert codes == [75, 2]
    assert find_exit_code(InputError("wrong")) == 2


def test_an_error_without_a_path_gets_one():
    with pytest.raises(OSError, match="out/rows") as caught, naming_path(Path("out/rows")):
        raise OSError(errno.ENOSPC, "no space left on device")
    assert caught.value.filename == "out/rows"
    with pytest.raises(OSError, match="own") as caught, naming_path(Path("out/rows")):
        raise OSError(errno.ENOSPC, "no space left on device", "own")
    assert caught.value.filename == "own"


def test_what_is_written_into_an_output_folder_names_it_at_least(tmp_path):
    with pytest.raises(OSError, match="out") as caught, OutputFolder(tmp_path / "out", identity="a"):
        raise OSError(errno.EIO, "input/output error")
    assert caught.value.filename == str(tmp_path / "out")


@pytest.fixture
def full_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs rights that this process does not have")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


def test_a_full_disk_names_the_file_whichever_library_writes(full_disk, tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "big").write_bytes(bytes(200_000))
    writes = {
        "python": lambda path: write_atomic(path, bytes(200_000)),
        "copy": lambda path: copy_folder(tmp_path / "source", path),
    }
    for name, write in writes.items():
        with pytest.raises(OSError, match=name) as caught:
            write(full_disk / name)
        assert (caught.value.errno, str(full_disk) in caught.value.filename) == (errno.ENOSPC, True)
        shutil.rmtree(full_disk / name, ignore_errors=True)
    with pytest.raises(OSError, match="disk") as caught, writing_safetensors(full_disk):
        save_file({"a": np.zeros(100_000)}, full_disk / "a.safetensors")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(full_disk))


def test_safetensors_get_the_mode_of_other_files(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    before = os.umask(0o027)
    try:
        with writing_safetensors(tmp_path):
            save_file({"a": np.zeros(3)}, tmp_path / "a.safetensors")
            (tmp_path / "config.json").write_text("{}")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o640}


HOLDING = """
import sys, time
from thresher.artifacts.scratch import make_scratch_folder
class Owner: pass
owner = Owner()
(make_scratch_folder(owner) / "plain").write_bytes(b"rows")
print("there", flush=True)
time.sleep(60)
"""


def test_the_temporary_files_of_a_killed_process_go_and_those_of_a_living_one_stay(tmp_path, monkeypatch):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLDING], env=environment, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == b"there\n"
    assert len(list(tmp_path.rglob("plain"))) == 2
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    (tmp_path / "thresher-scratch-of-mine").mkdir()
    (tmp_path / "thresher-scratch-of-mine" / "notes").touch()  # without a lock: not ours
    done = HOLDING.replace("time.sleep(60)", "del owner")
    subprocess.run([sys.executable, "-c", done], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert len(list(tmp_path.rglob("plain"))) == 1
    processes[1].terminate()
    processes[1].wait()
    subprocess.run([sys.executable, "-c", done], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert [path.name for path in tmp_path.iterdir()] == ["thresher-scratch-of-mine"]
    for process in processes:
        process.stdout.close()


def test_a_temporary_folder_goes_with_its_owner():
    class Owner:
        pass

    owner = Owner()
    folder = make_scratch_folder(owner)
    assert folder.is_dir()
    del owner
    deadline = time.monotonic() + 5
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not folder.exists()


def test_a_file_that_cannot_be_deleted_is_named_with_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("c")

    def refuse(path, **_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="error") as raised:
        delete_folder(tmp_path / "a")
    assert raised.value.filename == str(tmp_path / "a" / "b" / "c")


def test_folders_are_deleted_in_one_way_only():
    """`shutil.rmtree` names only the last part of the path in its errors."""
    for path in sorted(Path(module.__file__).parents[1].rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("rmtree"):
                names = {keyword.arg for keyword in node.keywords}
                assert path.name == "disk_errors.py" or "ignore_errors" in names, f"{path}:{node.lineno}"
