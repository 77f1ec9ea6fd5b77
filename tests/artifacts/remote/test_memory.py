"""Addresses with the storage in this process: promises, and what is refused."""

import importlib.util
import json

import pytest

import thresher as th
from tests.local_s3 import serve_status
from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.remote.address import parse_address
from thresher.artifacts.remote.fetch import fetch
from thresher.artifacts.remote.lock import RemoteLock
from thresher.artifacts.remote.places import find_address, find_place, name_addresses
from thresher.artifacts.remote.storage import Storage
from thresher.cli.main import main
from thresher.errors import InputError, ManifestError, OutputError, find_exit_code

OUT = "memory://out/chosen"


def select(budget=5, **options):
    return th.select("memory://in/rows.jsonl", "random", budget=budget, out=OUT, **options)


@pytest.fixture
def pool(memory, rows):
    memory.pipe("/in/rows.jsonl", rows)
    return memory


def list_files(memory, folder="/out/chosen"):
    return sorted(path.removeprefix(f"{folder}/") for path in memory.find(folder))


def test_rows_and_result_stand_at_addresses(pool, tmp_path):
    subset = select()
    assert len(subset.kept) == 5
    manifest = json.loads(pool.cat("/out/chosen/manifest.json"))
    assert manifest["run"]["inputs"] == ["memory://in/rows.jsonl"]
    assert str(tmp_path) not in json.dumps(manifest)
    assert "identity.txt" not in list_files(pool)
    assert set(list_files(pool)) == {*manifest["run"]["seal"]["files"], "manifest.json"}
    assert len(th.load(OUT)) == 5


def test_a_finished_result_is_read_back_and_another_needs_force(pool):
    select()
    before = pool.cat("/out/chosen/manifest.json")
    select()
    assert pool.cat("/out/chosen/manifest.json") == before
    with pytest.raises(OutputError, match=r"memory://out/chosen: the output folder must be new or empty.*--force"):
        select(budget=6)
    select(budget=6, force=True)
    assert len(th.load(OUT)) == 6


def test_force_replaces_only_what_thresher_wrote(pool):
    pool.pipe("/out/chosen/thesis.txt", b"mine")
    for force in (False, True):
        with pytest.raises(OutputError, match="thesis.txt"):
            select(force=force)
    assert pool.cat("/out/chosen/thesis.txt") == b"mine"


class Killed(BaseException):
    """The process ends here."""


def list_changes(monkeypatch, stop_at):
    """Let the n-th change at the storage, and all after it, end the run."""
    done = []

    def guard(function):
        def change(self, *arguments, **named):
            done.append(function.__name__)
            if len(done) > stop_at:
                raise Killed
            return function(self, *arguments, **named)

        return change

    for name in ("upload", "write", "create", "delete"):
        monkeypatch.setattr(Storage, name, guard(getattr(Storage, name)))
    return done


@pytest.mark.parametrize("force", [False, True])
def test_a_kill_at_every_change_shows_all_or_nothing_and_the_next_run_completes(pool, force, monkeypatch):
    def start(folder):
        if force:
            th.select("memory://in/rows.jsonl", "random", budget=9, out=folder)

    start(OUT)
    with monkeypatch.context() as patched:
        n_changes = len((list_changes(patched, 10**6), select(force=force))[0])
    expected = {name: pool.cat(f"/out/chosen/{name}") for name in list_files(pool) if name != "manifest.json"}
    assert n_changes > 8
    for stop_at in range(n_changes):
        pool.rm("/out", recursive=True)
        start(OUT)
        with monkeypatch.context() as patched:
            list_changes(patched, stop_at)
            with pytest.raises(Killed):
                select(force=force)
        if "manifest.json" in list_files(pool):
            assert len(th.load(OUT)) in ((5, 9) if force else (5,))  # its seals hold
        elif list_files(pool):
            with pytest.raises(InputError, match="whole, found one whose upload was not finished"):
                th.load(OUT)
        for name in [name for name in pool.find("/out") if ".lock" in name]:
            pool.rm(name)  # as the process of the next run finds that this one is dead
        select(force=force)
        assert {name: pool.cat(f"/out/chosen/{name}") for name in expected} == expected
        assert set(list_files(pool)) == {*expected, "manifest.json"}


def test_a_damaged_result_is_never_used(pool):
    select()
    pool.pipe("/out/chosen/subset.jsonl", pool.cat("/out/chosen/subset.jsonl")[:-2] + b"X\n")
    with pytest.raises(ManifestError, match="checksum differs"):
        th.load(OUT)
    with pytest.raises(OutputError, match="--force"):
        select()
    select(force=True)
    assert len(th.load(OUT)) == 5


def test_a_copy_follows_what_is_there(pool, rows):
    assert len(th.load("memory://in/rows.jsonl")) == 20
    pool.pipe("/in/rows.jsonl", rows.splitlines(keepends=True)[0])
    pool.pipe("/in/more.jsonl", rows.splitlines(keepends=True)[1])
    assert len(th.load("memory://in/*.jsonl")) == 2
    assert len(th.load("memory://in")) == 2
    pool.rm("/in/more.jsonl")
    assert len(th.load("memory://in/*.jsonl")) == 1
    assert len(th.load("memory://in")) == 1


def test_a_copy_changed_by_hand_is_fetched_again(pool):
    path = fetch(parse_address("memory://in/rows.jsonl"))
    path.write_text("other")
    assert len(th.load("memory://in/rows.jsonl")) == 20


def test_settings_and_file_addresses_are_read(pool, rows, tmp_path):
    (tmp_path / "my rows.jsonl").write_bytes(rows)
    assert len(th.load((tmp_path / "my rows.jsonl").as_uri())) == 20
    dataset = th.load(["memory://in/rows.jsonl:text=text,label=label", (tmp_path / "my rows.jsonl").as_uri()])
    assert len(dataset) == 40


def test_two_runs_are_kept_apart(pool):
    with (
        OutputFolder(OUT, identity="x"),
        pytest.raises(OutputError, match="another run"),
        OutputFolder(OUT, identity="x"),
    ):
        pass


def test_a_lock_that_was_lost_publishes_nothing(pool):
    def write(work):
        (work / "manifest.json").write_text('{"identity": "x"}')
        pool.pipe("/out/.chosen.lock/000099", b'{"state": "held"}')

    with OutputFolder(OUT, identity="x") as folder, pytest.raises(OutputError, match="taken over"):
        folder.publish_files(write)
    assert list_files(pool) == []


def test_a_storage_without_conditions_is_refused(pool, monkeypatch):
    monkeypatch.setattr(Storage, "create", lambda self, address, content: self.write(address, content) or True)
    with pytest.raises(InputError, match="If-None-Match"), OutputFolder(OUT, identity="x"):
        pass


def test_a_lock_elsewhere_that_stands_still_is_taken_over(pool, monkeypatch):
    monkeypatch.setattr(RemoteLock, "poll_s", 0.05)
    owner = {"state": "held", "host": "elsewhere", "boot": "b", "space": "s", "pid": 1, "start": "1", "stale_s": 0.3}
    pool.pipe("/out/.chosen.lock/000007", json.dumps(owner).encode())
    address = parse_address(OUT)
    with RemoteLock(parse_address("memory://out/.chosen.lock"), place=address, stale_s=0.3) as lock:
        assert lock.taken_from == "process 1 on elsewhere"


def test_the_command_line_names_addresses_and_never_copies(pool, tmp_path, capsys):
    assert main(["select", "memory://in/rows.jsonl", "--method", "random", "--budget", "5", "--out", OUT]) == 0
    assert main(["score", OUT, "--features", "number:label", "--out", "memory://out/scores.csv"]) in (0, 2)
    assert main(["score", "memory://in/rows.jsonl", "--features", "length", "--out", "memory://out/scores.csv"]) == 0
    assert main(["report", OUT]) == 0
    shown = capsys.readouterr()
    assert str(tmp_path / "cache") not in shown.out + shown.err
    assert f"{OUT}/report.html" in shown.out
    assert {"scores.csv", "scores.csv.manifest.json"} <= set(list_files(pool, "/out"))
    assert "report.html" in list_files(pool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("select memory://in/rows.jsonl --budget 1 --out https://host/out", "takes no files whole"),
        ("select memory://in/rows.jsonl --budget 1 --out hf://datasets/me/x", "--push-to-hub"),
        ("select memory://in/rows.jsonl --budget 1 --out s3://bucket", "a folder of its own"),
        ("select ftp://me:hunter2@host/rows.jsonl --budget 1", "s3, gs, hf, https"),
        ("select memory://in/none.jsonl --budget 1", "nothing is there"),
        ("select memory://in/*.csv --budget 1", "no file matches"),
        ("select memory://in/../rows.jsonl --budget 1", "no empty part"),
        ("advise memory://in/rows.jsonl --eval 20% --out memory://out/x", "a folder for each step"),
        ("curate run memory://in/job.toml", "a path of this machine"),
        ("select memory://in/rows.jsonl --budget 1 --encoder memory://in/model", "a path of this machine"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_sentence(arguments, message, pool, capsys):
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "hunter2" not in line
    assert pool.find("/out") == []


def test_a_missing_package_is_named_with_its_command(pool, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "gcsfs" else find(name, *more))
    assert main(["select", "gs://bucket/rows.jsonl", "--budget", "1"]) == 2
    assert "[gcs]'" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code", "message"), [(403, 2, "403"), (404, 2, "404"), (503, 75, "again later")])
def test_answers_of_web_servers_become_one_sentence(status, code, message, rows, capsys):
    pytest.importorskip("aiohttp")
    with serve_status(status) as port:
        address = f"http://me:hunter2@127.0.0.1:{port}/rows.jsonl?signature=hunter2"
        assert main(["select", address, "--budget", "1"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "hunter2" not in line


def test_rows_of_a_web_server_are_read_without_their_secrets(rows):
    pytest.importorskip("aiohttp")
    with serve_status(200, rows) as port:
        pool = th.load(f"http://127.0.0.1:{port}/rows.jsonl?signature=hunter2")
        subset = th.select(pool, "random", budget=2)
    manifest = json.dumps(subset.manifest.content)
    assert f"http://127.0.0.1:{port}/rows.jsonl" in manifest
    assert "hunter2" not in manifest


def test_a_server_that_is_away_may_come_back(rows):
    pytest.importorskip("aiohttp")
    with pytest.raises(InputError, match="again later") as raised:
        th.load("http://127.0.0.1:9/rows.jsonl")
    assert find_exit_code(raised.value) == 75


def test_paths_and_addresses_lead_to_each_other(rows):
    place = parse_address("s3://bucket/a/b.jsonl")
    assert find_address(find_place(place)) == place
    assert name_addresses(f"{find_place(place)}: fine") == "s3://bucket/a/b.jsonl: fine"
    secret = parse_address("https://host/a/b.jsonl?key=hunter2")
    assert str(find_address(find_place(secret))) == str(secret) == "https://host/a/b.jsonl"
    assert "hunter2" not in str(find_place(secret))
