"""Kills, full disks, read-only folders: nothing half, one sentence, and the next run goes on."""

import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

# Runs a job, and dies without any clean-up at the n-th operation that changes the disk.
DYING = """
import itertools, os, sys
count, at = itertools.count(1), int(sys.argv[2])
def dying(function):
    def wrapped(*arguments, **options):
        if next(count) == at:
            os._exit(9)
        return function(*arguments, **options)
    return wrapped
for name in ("fsync", "rename", "replace", "link", "symlink", "unlink", "rmdir"):
    setattr(os, name, dying(getattr(os, name)))
from thresher.jobs.run import run_job
result = run_job(sys.argv[1])
print(next(count))
"""
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from thresher.cli.main import main
sys.exit(main(["curate", "run", sys.argv[1]]))
"""


@pytest.fixture
def python(forks):
    """Run code in a process with a cache of its own."""
    return lambda code, *arguments, cache: forks.run(
        ["-c", code, *arguments], environment={"THRESHER_CACHE": str(cache)}
    )


def nights(kit, rows):
    """Yield after each delivery of three, for a run."""
    kit.write(select="total = 40", steps='[[steps]]\nrule = "exact-duplicates"\n[[steps]]\nrule = "near-duplicates"\n')
    for night in range(3):
        kit.add(f"n{night}", [*rows(30, night), *rows(4, 0)])
        yield night


def undisturbed(kit, rows, tmp_path, read_snapshot):
    other = type(kit)(tmp_path / "undisturbed")
    for _ in nights(other, rows):
        other.run()
    return read_snapshot(other.out / "latest")


def n_operations(python, kit, rows, tmp_path):
    other = type(kit)(tmp_path / "counted")
    next(nights(other, rows))
    return int(python(DYING, other.file, 0, cache=tmp_path / "cache-counted").stdout)


def killed_everywhere(python, kit, rows, tmp_path, read_snapshot, moments):
    expected = undisturbed(kit, rows, tmp_path, read_snapshot)
    cache = tmp_path / "cache-killed"
    for night in nights(kit, rows):
        for at in moments[night]:
            done = python(DYING, kit.file, at, cache=cache)
            assert done.returncode in (0, 9), done.stderr
            for path in (kit.out / "snapshots").glob("*"):
                assert (path / "manifest.json").is_file()  # whatever can be seen is whole
        done = python(DYING, kit.file, 0, cache=cache)
        assert done.returncode == 0, done.stderr
    assert read_snapshot(kit.out / "latest") == expected
    assert not (kit.out / ".work").exists()


def test_killed_at_a_random_operation_a_job_ends_as_if_undisturbed(python, kit, rows, tmp_path, read_snapshot):
    expected = undisturbed(kit, rows, tmp_path, read_snapshot)
    at = int(np.random.default_rng(0).integers(12, 40))  # of about 50
    for night in nights(kit, rows):
        if night == 1:
            assert python(DYING, kit.file, at, cache=tmp_path / "cache-killed").returncode == 9
        kit.run()
    assert read_snapshot(kit.out / "latest") == expected


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_operation_a_job_ends_as_if_undisturbed(python, kit, rows, tmp_path, read_snapshot):
    n = n_operations(python, kit, rows, tmp_path)
    killed_everywhere(python, kit, rows, tmp_path, read_snapshot, [range(1, n), range(1, n, 3), range(2, n, 3)])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments_a_job_ends_as_if_undisturbed(kit, rows, tmp_path, read_snapshot):
    expected = undisturbed(kit, rows, tmp_path, read_snapshot)
    rng = np.random.default_rng(1)
    environment = {**os.environ, "THRESHER_CACHE": str(tmp_path / "cache-killed"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "thresher", "curate", "run", str(kit.file), "--quiet"]
    for _ in nights(kit, rows):
        for moment in rng.uniform(0.2, 4.0, 7):
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            time.sleep(moment)
            process.kill()
            process.wait()
        done = subprocess.run(command, env=environment, check=False)
        assert done.returncode in (0, 3)  # 3 when a run that was to be killed had come to its end
    assert read_snapshot(kit.out / "latest") == expected


def test_a_snapshot_is_reported_until_a_run_has_said_so(kit):
    def stop(result):
        assert (result.outcome, result.exit_code) == ("done", 0)
        raise KeyboardInterrupt

    kit.write()
    kit.add("a", [{"prompt": "2 and 2", "completion": "4"}])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            kit.run(announce=stop)
    said = []
    assert kit.run(announce=said.append).exit_code == 0
    assert [result.version for result in said] == [1]
    assert kit.run(announce=said.append).exit_code == 3
    assert [result.outcome for result in said] == ["done", "nothing-new"]


# The command, which writes how many operations it took.
COMMAND = DYING.replace(
    "from thresher.jobs.run import run_job\nresult = run_job(sys.argv[1])\nprint(next(count))\n",
    "from thresher.cli.main import run\n"
    "leave = os._exit\n"
    "os._exit = lambda code: (os.write(2, str(next(count)).encode()), leave(code))\n"
    "sys.argv[1:] = ['curate', 'run', sys.argv[1], '--quiet']\n"
    "run()\n",
)


@pytest.mark.parametrize("places", [[1], pytest.param(range(2, 14), marks=pytest.mark.slow)], ids=["last", "others"])
def test_a_run_that_is_killed_at_its_end_is_reported_by_the_next(python, kit, rows, tmp_path, places):
    """Killed at one of the last changes on the disk; the last one says that all is announced."""

    def run_command(name, at):
        own = type(kit)(tmp_path / name).write(steps="")
        own.add("a", rows(5, 1))
        return own, python(COMMAND, own.file, at, cache=tmp_path / f"cache-{name}")

    whole, done = run_command("whole", 0)
    assert (done.returncode, whole.run().exit_code) == (0, 3), done.stderr
    n_operations = int(done.stderr) - 1
    for place in places:
        killed, done = run_command(f"killed{place}", n_operations - place + 1)
        assert (done.returncode, killed.run().exit_code, killed.run().exit_code) == (9, 0, 3), place


def test_a_file_size_limit_leaves_nothing_half_and_is_one_sentence(python, kit, tmp_path):
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, 400))) for _ in range(400)]
    kit.write(steps="", more="[gates]\nn_topics = 0\n")
    kit.add("a", [{"prompt": text, "completion": "yes"} for text in texts])
    kit.run(dry_run=True)  # the features are in the cache
    done = python(LIMITED, kit.file, cache=tmp_path / "cache")
    assert done.returncode == 2, done.stderr
    assert "file too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (kit.out / "latest").exists()
    assert list((kit.out / "snapshots").iterdir()) == []
    assert kit.run().outcome == "done"


@pytest.fixture
def small_disk(tmp_path):
    """Give a function that mounts a disk of so many kB, or skip where this process may not."""
    mounted = []

    def mount(folder, kilobytes, *options):
        folder.mkdir(parents=True, exist_ok=True)
        flags = ",".join([f"size={kilobytes}k", *options])
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", flags, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("mounting a small disk needs rights that this process does not have")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=False)


def test_a_full_disk_leaves_nothing_half_and_the_old_snapshot(python, kit, rows, small_disk, tmp_path, read_snapshot):
    small_disk(kit.out, 200)
    kit.write(steps="")
    kit.add("a", rows(30, 1))
    kit.run()
    before = read_snapshot(kit.out / "latest")
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, 600))) for _ in range(700)]
    path = kit.add("b", [{"prompt": text, "completion": "yes"} for text in texts])
    done = python(
        "import sys\nfrom thresher.cli.main import main\nsys.exit(main(['curate', 'run', sys.argv[1]]))",
        kit.file,
        cache=tmp_path / "cache",
    )
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert read_snapshot(kit.out / "latest") == before
    assert [entry.name for entry in (kit.out / "snapshots").iterdir()] == ["v000001"]
    path.unlink()
    kit.add("c", rows(10, 2))
    assert kit.run().version == 2


def test_a_read_only_output_is_one_sentence(kit, rows, small_disk):
    from thresher.errors import OutputError

    kit.write(steps="")
    kit.add("a", rows(5, 1))
    small_disk(kit.out, 100, "ro")
    with pytest.raises(OutputError, match="must be writable"):
        kit.run()


def test_a_second_run_exits_75_and_changes_nothing(kit, rows):
    from thresher.artifacts.locking.lock import Lock

    kit.run_first()
    kit.add("b", rows(5, 2))
    with Lock(kit.out, stale_s=5):
        busy = kit.run()
    assert (busy.outcome, busy.exit_code) == ("busy", 75)
    assert len(kit.table()) == 5
    assert kit.run().outcome == "done"


def test_a_damaged_history_and_scan_cost_nothing_but_themselves(kit):
    kit.run_first()
    for damage in (
        b"",
        b"SQLite format 3\0 but no more than that" * 50,
        b"\xff" * 5000,
        b'{"files": {}, "spent": {"a": [1]}}',
    ):
        (kit.out / "history.sqlite").write_bytes(damage)
        (kit.out / "scan.json").write_bytes(damage)
        assert kit.run().outcome == "nothing-new"
    from thresher.jobs.inspection import list_runs

    assert list_runs(kit.out)[0].outcome == "nothing-new"


def test_the_next_run_reports_a_snapshot_whose_own_run_was_killed_before_it_could(kit, rows, monkeypatch):
    """The scheduler that starts it again starts what waits for exit code 0, and not for 3."""
    import thresher.jobs.run as module
    from thresher.jobs.inspection import find_run

    kit.write()
    kit.add("a", rows(5, 1))
    with monkeypatch.context() as patched:
        patched.setattr(module, "_prune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kit.run()
    assert len(kit.table()) == 5
    again = kit.run()
    assert (again.outcome, again.version, again.report["counts"]["new"]) == ("done", 1, 0)
    assert kit.run().outcome == "nothing-new"
    assert find_run(kit.file, "v1").number == 2
    kit.add("b", rows(5, 2))
    with monkeypatch.context() as patched:
        patched.setattr(module, "_prune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kit.run()
    kit.add("c", rows(5, 3))
    assert kit.run().version == 3
    assert find_run(kit.file, "v2").number == 4  # the run that was interrupted
    assert not (kit.out / ".work").exists()


def test_a_history_that_a_kill_left_half_written_is_rolled_back_by_whoever_reads_it(kit, tmp_path):
    import shutil
    import sqlite3

    from thresher.jobs.inspection import list_runs

    kit.run_first()
    with sqlite3.connect(kit.out / "history.sqlite") as writing:
        writing.execute("PRAGMA cache_size = 1")
        writing.executemany(
            "INSERT INTO run (started, outcome, owner, report) VALUES ('now', 'bug', '', ?)", [("x" * 5000,)] * 50
        )
        shutil.copytree(kit.out, tmp_path / "killed", symlinks=True)  # with a journal to roll back
        writing.rollback()
    writing.close()
    assert (tmp_path / "killed" / "history.sqlite-journal").stat().st_size
    assert [run.outcome for run in list_runs(tmp_path / "killed")] == ["done"]


def test_one_run_is_found_without_reading_the_reports_of_all(kit):
    import sqlite3

    from thresher.errors import NotFoundError
    from thresher.jobs.inspection import find_run

    kit.run_first()
    with sqlite3.connect(kit.out / "history.sqlite") as database:
        database.executemany(
            "INSERT INTO run (started, outcome, owner, report) VALUES ('now', 'gate', '', ?)", [("not JSON",)] * 3
        )
    database.close()
    assert (find_run(kit.file, "1").number, find_run(kit.file, "latest").number) == (1, 1)
    with pytest.raises(NotFoundError, match="there are: 1 to 4"):
        find_run(kit.file, "9" * 30)


def test_a_lost_list_of_known_rows_is_a_warning(kit, rows):
    kit.run_first()
    next((kit.out / "seen").iterdir()).unlink()
    kit.add("b", [*rows(5, 1), *rows(5, 2)])
    result = kit.run()
    assert any("count as new again" in message for message in kit.warnings())
    assert result.report["counts"]["entered"] == 5  # kept rows are known by the snapshot itself


def test_a_run_that_was_killed_is_recorded_as_such(python, kit, rows, tmp_path):
    from thresher.jobs.inspection import list_runs

    kit.write()
    kit.add("a", rows(5, 1))
    at = itertools.count(12)
    while python(DYING, kit.file, next(at), cache=tmp_path / "cache").returncode != 9:
        pass
    kit.run()
    outcomes = [run.outcome for run in list_runs(kit.file)]
    assert outcomes[0] in ("done", "nothing-new")
    assert set(outcomes[1:]) <= {"killed", "done", "nothing-new"}
    assert json.loads((kit.out / "latest" / "manifest.json").read_bytes())["version"] == 1


@pytest.mark.parametrize(("number", "is_fine"), [("EPERM", True), ("EIO", False), ("ENOSPC", False), ("EACCES", False)])
def test_a_pointer_that_cannot_be_made_is_an_error_unless_there_are_no_links(kit, number, is_fine, monkeypatch):
    import errno

    def refuse(*_, **__):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    kit.write()
    kit.add("a", [{"prompt": "a", "completion": "b"}])
    with monkeypatch.context() as patched:
        patched.setattr(os, "symlink", refuse)
        if is_fine:
            assert kit.run().version == 1
            assert (kit.out / "latest").is_file()
            return
        with pytest.raises(OSError, match=os.strerror(getattr(errno, number))):
            kit.run()
    again = kit.run()
    assert (again.outcome, again.version) == ("done", 1)
    assert (kit.out / "latest").is_symlink()


def test_known_rows_that_cannot_be_read_for_a_time_end_the_run(kit, rows, monkeypatch):
    """Their rows would count as new again."""
    import errno
    from pathlib import Path

    kit.run_first()
    kit.add("b", rows(5, 2))
    read = Path.read_bytes

    def refuse(path):
        if path.suffix == ".ids":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        with pytest.raises(OSError, match="ids"):
            kit.run()
    assert kit.run().report["counts"]["new"] == 5
