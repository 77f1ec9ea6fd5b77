"""The lock: one run at a time, and an owner that is dead is told from one that is slow."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thresher.artifacts.locking import heartbeat
from thresher.artifacts.locking import lock as module
from thresher.artifacts.locking.lock import BusyError, Lock, LostLockError, Owner
from thresher.errors import OutputError

HOLD = """
import sys
from pathlib import Path
from thresher.artifacts.locking.lock import BusyError, Lock
try:
    with Lock(Path(sys.argv[1]), stale_s=2):
        print("held", flush=True)
        sys.stdin.read()  # for as long as the test wants
except BusyError:
    print("busy", flush=True)
"""


def hold(folder):
    """Start a process that takes the lock, if it can, and holds it until its stdin is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def close(process):
    process.stdin.close()
    process.stdout.close()


def pretend(folder, *, host, count=0, **more):
    """Write a lock that a run elsewhere holds."""
    (folder / ".lock").mkdir(exist_ok=True)
    owner = {"state": "held", "host": host, "boot": "b", "space": "s", "pid": 1, "start": "1", **more}
    (folder / ".lock" / "000007").write_text(json.dumps(owner))
    beat = folder / ".lock" / "000007.beat"
    beat.write_text(str(count).zfill(heartbeat.WIDTH))
    return beat


def test_a_lock_can_be_taken_again_after_it_was_freed(tmp_path):
    for _ in range(3):
        with Lock(tmp_path, stale_s=2) as lock:
            lock.check()
    assert [path.name for path in (tmp_path / ".lock").iterdir()] == ["000003"]


def test_a_second_run_in_the_same_process_is_busy(tmp_path):
    with (
        Lock(tmp_path, stale_s=2),
        pytest.raises(BusyError, match=f"process {os.getpid()} on"),
        Lock(tmp_path, stale_s=2),
    ):
        pass


def test_a_lock_that_could_not_be_taken_whole_is_given_back(tmp_path, monkeypatch):
    """A process that lives on, such as a scheduler's worker, held it until it ended."""
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(BlockingIOError(11, "no process")))
        with pytest.raises(OutputError, match="temporarily unavailable"), Lock(tmp_path, stale_s=2):
            pass
    with Lock(tmp_path, stale_s=2) as lock:
        assert lock.taken_from is None


def test_a_lock_is_freed_on_a_disk_without_room_for_another_file(tmp_path, monkeypatch):
    with monkeypatch.context() as patched, Lock(tmp_path, stale_s=2):
        patched.setattr(Path, "replace", full)
        patched.setattr(module, "_write", full)
    with Lock(tmp_path, stale_s=2):
        assert (tmp_path / ".lock" / "000002").is_file()


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_living_process_holds_it_and_a_killed_one_loses_it_at_once(tmp_path):
    process = hold(tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BusyError), Lock(tmp_path, stale_s=30):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    close(process)
    began = time.monotonic()
    with Lock(tmp_path, stale_s=30) as lock:
        assert lock.taken_from is not None
    assert time.monotonic() - began < 5


def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path):
    (tmp_path / ".lock").mkdir()
    owner = {**vars(Owner.current()), "start": "1", "state": "held"}  # our number, another start
    (tmp_path / ".lock" / "000001").write_text(json.dumps(owner))
    with Lock(tmp_path, stale_s=30) as lock:
        assert lock.taken_from is not None


def test_a_run_elsewhere_is_dead_when_its_counter_stands_still(tmp_path):
    pretend(tmp_path, host="elsewhere")
    said = []
    began = time.monotonic()
    with Lock(tmp_path, stale_s=1, on_wait=said.append) as lock:
        assert lock.taken_from == "process 1 on elsewhere"
    assert 1 <= time.monotonic() - began < 5
    assert "process 1 on elsewhere" in said[0]


def test_a_run_elsewhere_is_alive_while_its_counter_moves_whatever_the_clocks_say(tmp_path):
    beat = pretend(tmp_path, host="elsewhere")
    os.utime(beat, (0, 0))  # its clock is decades behind
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", heartbeat.__file__, str(beat), "0.1"], stdin=subprocess.PIPE
    )
    try:
        began = time.monotonic()
        with pytest.raises(BusyError), Lock(tmp_path, stale_s=30):
            pass
        assert time.monotonic() - began < 10
    finally:
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_a_run_elsewhere_is_given_the_time_that_it_asks_for_itself(tmp_path):
    """It beats six times in its own stale_s: a watcher with a shorter one saw it stand still."""
    beat = pretend(tmp_path, host="elsewhere", stale_s=8)
    process = subprocess.Popen([sys.executable, "-I", "-S", heartbeat.__file__, str(beat), "2"], stdin=subprocess.PIPE)
    try:
        with pytest.raises(BusyError), Lock(tmp_path, stale_s=1):
            pass
    finally:
        process.stdin.close()
        process.wait(timeout=10)


def test_the_heartbeat_dies_with_its_parent(tmp_path):
    process = hold(tmp_path)
    assert process.stdout.readline() == "held\n"
    beat = next((tmp_path / ".lock").glob("*.beat"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    close(process)
    time.sleep(0.7)
    first = beat.read_bytes()
    time.sleep(0.8)  # more than two beats of a third of a second
    assert beat.read_bytes() == first


def test_of_many_at_once_exactly_one_gets_it(tmp_path):
    pretend(tmp_path, host="elsewhere")  # all of them watch it, and find it dead together
    processes = [hold(tmp_path) for _ in range(6)]
    # whoever has it keeps it until all have tried, however late some of them start
    said = [process.stdout.readline() for process in processes]
    for process in processes:
        process.communicate(timeout=60)
    assert sorted(said) == ["busy\n"] * 5 + ["held\n"]


def test_an_owner_that_was_taken_for_dead_notices(tmp_path):
    with Lock(tmp_path, stale_s=2) as lock:
        (tmp_path / ".lock" / "000099").write_text("{}")
        with pytest.raises(LostLockError, match="taken over"):
            lock.check()
