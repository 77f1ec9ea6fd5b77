"""Ray as the engine: equal to one machine; a node that goes in mid-run costs what it was at and nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import thresher as th
from thresher.cluster.ray_engine import RayEngine, connected, record_of
from thresher.errors import InputError, MissingExtraError, NotFoundError
from thresher.output import whole_file

ray = pytest.importorskip("ray")

spec = importlib.util.spec_from_file_location("cluster_conftest", Path(__file__).with_name("conftest.py"))
kit = importlib.util.module_from_spec(spec)
sys.modules.setdefault("cluster_conftest", kit)
spec.loader.exec_module(kit)


def told(subset):
    return {key: value for key, value in subset.manifest.content.items() if key != "run"}


@pytest.fixture(scope="module")
def one_node():
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore")  # of ray itself
def test_ray_gives_what_one_machine_gives(one_node, pool_folder, tmp_path):
    here = th.select(str(pool_folder), budget=40, encoder="static")
    there = th.select(str(pool_folder), budget=40, encoder="static", engine="ray", out=tmp_path / "there")
    assert told(there) == told(here)
    assert there.dropped.equals(here.dropped)
    assert there.manifest.content["run"]["engine"]["name"] == "ray"
    with pytest.raises(InputError, match="encoder 'no/such-encoder' must be a folder or a model on the Hub"):
        th.select(str(pool_folder), budget=4, encoder="no/such-encoder", engine="ray", out=tmp_path / "not")
    (tmp_path / "odd.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    files = [*sorted(pool_folder.iterdir()), tmp_path / "odd.jsonl"]
    with pytest.raises(InputError, match=r"odd.jsonl: rows of schema 'prompt-completion' are required"):
        th.select(files, budget=4, encoder="static", engine="ray", out=tmp_path / "not")


def test_an_address_that_nobody_answers_at_is_refused_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    for address, sentence in {
        f"127.0.0.1:{port}": "no Ray cluster answers at",
        "ray://head:10001": "must be HOST:PORT of a Ray cluster, or auto, got 'ray://head:10001'",
        "head": "must be HOST:PORT",
        "127.0.0.1:99999": "no Ray cluster answers at",
    }.items():
        with pytest.raises(InputError, match=sentence), connected(address):
            pass
    assert time.monotonic() - began < 10


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'thresher\[ray\]'"), connected():
        pass


def test_what_a_user_must_mend_comes_back_as_it_was_raised():
    for error in (InputError("a: b"), NotFoundError("c"), MissingExtraError("faiss", "near", "near")):
        text = json.dumps({"failure": type(error).__name__, "sentence": str(error)})
        with pytest.raises(type(error)) as found:
            record_of(text)
        assert str(found.value) == str(error)


@dataclass(frozen=True)
class Slow:
    """Takes half a second a shard, and tells of each attempt."""

    folder: Path
    name: str = "slow"
    memory_bytes: int = 0
    has_model: bool = True

    def hold(self):
        return self

    def __call__(self, number):
        attempts = self.folder / "attempts"
        attempts.mkdir(exist_ok=True)
        (attempts / f"{number}-{time.time_ns()}").touch()
        time.sleep(0.5)
        with whole_file(self.folder / f"{number}.txt") as path:
            path.write_text(str(number))
        return {"rows": 1}


@pytest.fixture
def two_nodes():
    from ray.cluster_utils import Cluster

    ray.shutdown()
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = here
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    yield cluster, node
    ray.shutdown()
    cluster.shutdown()
    del os.environ["PYTHONPATH"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray itself
@pytest.mark.parametrize("method", ["map_shards", "map_shards_with_model"])
def test_a_removed_node_costs_at_most_what_it_was_at(two_nodes, tmp_path, method):
    cluster, node = two_nodes
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    work, done = Slow(tmp_path), {}
    for record in getattr(RayEngine(), method)(work, range(16)):
        done[record["number"]] = (tmp_path / f"{record['number']}.txt").stat().st_mtime_ns
        if len(done) == 6:
            cluster.remove_node(node, allow_graceful=False)
            removed = time.time_ns()
    assert sorted(done) == list(range(16)), "no shard is lost"
    attempts = [path.name.split("-") for path in (tmp_path / "attempts").iterdir()]
    after = {int(number) for number, at in attempts if int(at) > removed}
    before = {number for number, at in done.items() if at < removed}
    assert not after & before, "a shard that was done is not done again"
    assert len(attempts) - 16 <= 2, "one node of one processor was at one shard, and its actor may have had one queued"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray itself
def test_a_node_that_goes_in_mid_run_changes_nothing(two_nodes, tmp_path):
    cluster, node = two_nodes
    pool = kit.write_shards(tmp_path / "pool", kit.made_rows(400, seed=9), 16)
    here = kit.run_in_process(str(pool), tmp_path / "here", partitions=4)
    stages = tmp_path / ".there.stages"
    seen = {}

    def watch(progress):
        if progress.stage == "features" and progress.done == 4 and not seen:
            cluster.remove_node(node, allow_graceful=False)
            seen["at"] = time.time_ns()
            seen["files"] = {path: path.stat().st_mtime_ns for path in stages.glob("features-*/*.json")}
        if progress.stage == "write":
            seen["then"] = {path: path.stat().st_mtime_ns for path in seen["files"]}

    there = th.select(
        str(pool),
        budget=40,
        encoder="static",
        engine="ray",
        partitions=4,
        out=tmp_path / "there",
        on_progress=watch,
    )
    assert seen["then"] == seen["files"], "what was done before stays as it was"
    assert len(seen["files"]) >= 4
    assert there.manifest.hash == here.manifest.hash
    assert there.dropped.equals(here.dropped)
