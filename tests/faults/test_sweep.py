"""A fault at every change of files: the next run ends as if undisturbed.

`benchmarks/faults` has the library that is preloaded, the commands and the checks.
"""

import random
import shutil

import pytest

from benchmarks.faults.commands import build_commands
from benchmarks.faults.fork_server import FAULTS, ForkServer, UnavailableError
from benchmarks.faults.sweep import Sweep, find_unsynced, measure

NAMES = ["select", "select --force", "train", "curve", "curate run"]
SAMPLED = {"select": 6, "curate run": 5}  # faults of each, in `make test`


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    try:
        with ForkServer(tmp_path_factory.mktemp("server")) as running:
            yield running
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def build_sweep(server, request, tmp_path):
    def build(name):
        model = request.getfixturevalue("tiny_bert") if name in ("train", "curve") else None
        return Sweep(build_commands(model)[name], server, tmp_path / "sweep").prepare()

    return build


@pytest.mark.parametrize("name", SAMPLED)
def test_after_a_fault_at_a_few_changes_the_next_run_ends_as_if_undisturbed(build_sweep, name):
    sweep = build_sweep(name)
    assert len(sweep.changes) > 80  # the library sees them
    assert find_unsynced(sweep.changes) == []
    chosen = random.Random(name)
    places = [(fault, at) for fault in FAULTS.values() for at in sweep.list_places(fault, is_thin=True)]
    problems = [one for fault, at in chosen.sample(places, SAMPLED[name]) for one in sweep.inject(at, fault)]
    assert problems == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_after_a_fault_at_every_change_the_next_run_ends_as_if_undisturbed(build_sweep, name, fault):
    assert measure(build_sweep(name), [FAULTS[fault]], is_thin=False)["problems"] == []


def test_a_fault_happens_where_it_is_wanted(server, tmp_path):
    """Each kind of fault, seen from outside: what is left is what the library is meant to leave."""
    arguments = ["methods", "random"]
    assert server.run(arguments, tmp_path).changes == 0  # it writes nothing below the folder
    out = tmp_path / "out"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one two three"}\n' * 3 + '{"text": "four five six"}\n')
    select = ["select", str(rows), "--method", "random", "--budget", "1", "--out", str(out), "--quiet"]
    whole = server.run(select, tmp_path, trace=tmp_path / "trace")
    kinds = [line.split("\t")[0] for line in (tmp_path / "trace").read_text().splitlines()]
    assert whole.status == 0
    assert whole.changes == len(kinds)
    shutil.rmtree(out)
    first_write = kinds.index("write") + 1
    killed = server.run(select, tmp_path, at=first_write, fault=FAULTS["kill"])
    assert killed.status == -9
    (half,) = (tmp_path / ".out.partial").iterdir()
    assert 0 < half.stat().st_size < 64  # half of a hash
    full = server.run(select, tmp_path, at=first_write, fault=FAULTS["full"])
    assert (full.status, "no space left on device" in full.output) == (2, True)
    broken = server.run(select, tmp_path, at=first_write, fault=FAULTS["error"])
    assert (broken.status, "input/output error" in broken.output) == (75, True)
    assert server.run(select, tmp_path).status == 0


def test_a_rename_before_a_sync_is_found():
    written = [("write", "a/.x", ""), ("rename", "a/x", "a/.x"), ("fsync", "a", "")]
    assert find_unsynced(written) == ["a/.x was renamed to a/x"]
    synced = [("write", "a/.x", ""), ("fsync", "a/.x", ""), ("rename", "a/x", "a/.x")]
    assert find_unsynced(synced) == ["the name of a/x was not synced"]
    assert find_unsynced([*synced, ("fsync", "a", "")]) == []
