"""Ray as the engine: equal to one machine; a lost node costs what it was at and nothing else."""

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
from tests.local_ray import own_ray_folder, start_local_ray
from thresher.artifacts.folder import atomic_file
from thresher.errors import InputError, MissingExtraError, NotFoundError, OutputError
from thresher.features.context import make_context
from thresher.selection.distributed import ray_engine
from thresher.selection.distributed.ray_engine import RayEngine, connect, parse_answer
from thresher.selection.distributed.shard_features import MeasureShard, build_worker_context

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def ray():
    """Import it as late as can be: collecting the tests takes no second for it."""
    pytest.importorskip("ray.data")
    return pytest.importorskip("ray")


@pytest.fixture(scope="module")
def one_node():
    pytest.importorskip("ray.data")
    with start_local_ray(1):
        yield


@pytest.mark.filterwarnings("ignore")  # of ray itself
def test_ray_gives_what_one_machine_gives(kit, one_node, pool_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "N_WAITING", 2)  # of 5 shards
    here = th.select(str(pool_folder), "facility-location", budget=40, encoder="static")
    there = th.select(
        str(pool_folder), "facility-location", budget=40, encoder="static", engine="ray", out=tmp_path / "there"
    )
    assert kit.read_facts(there) == kit.read_facts(here)
    assert there.dropped.equals(here.dropped)
    assert there.manifest.content["run"]["engine"]["name"] == "ray"
    with pytest.raises(InputError, match="encoder 'no/such-encoder' must be a folder or a model on the Hub"):
        th.select(
            str(pool_folder),
            "facility-location",
            budget=4,
            encoder="no/such-encoder",
            engine="ray",
            out=tmp_path / "not",
        )
    (tmp_path / "odd.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    files = [*sorted(pool_folder.iterdir()), tmp_path / "odd.jsonl"]
    with pytest.raises(InputError, match=r"odd.jsonl: rows of schema 'prompt-completion' are required"):
        th.select(files, "facility-location", budget=4, encoder="static", engine="ray", out=tmp_path / "not")


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
        "me:secret@head:6379": "without a user name or password",
        "ray://head:10001?token=secret": "got 'ray://head:10001'",
        "head:6379?token=secret": "got 'head:6379'",
    }.items():
        with pytest.raises(InputError, match=sentence) as found, connect(address):
            pass
        assert "secret" not in str(found.value)
    assert time.monotonic() - began < 10


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[ray\]'"), connect():
        pass


def test_what_a_user_must_fix_comes_back_as_it_was_raised():
    for error in (InputError("a: b"), NotFoundError("c"), MissingExtraError("faiss", "near", "near")):
        for host, where in ((socket.gethostname(), ""), ("other", " (on other)")):
            text = json.dumps({"failure": type(error).__name__, "sentence": str(error), "host": host})
            with pytest.raises(type(error)) as found:
                parse_answer(text)
            assert str(found.value) == f"{error}{where}"


def test_a_full_disk_of_a_node_is_one_sentence(tmp_path):
    def full(number):
        raise OSError(28, "No space left on device", "/data/x")

    full.folder = tmp_path
    with pytest.raises(OutputError, match="/data/x: must be readable and writable, got 'No space left on device'"):
        parse_answer(ray_engine.run_shard_as_json(full, 0))


def test_models_get_gpus_only_where_they_can_use_them(ray, monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    found = {}
    for encoder, device in (("static", None), ("minilm", None), ("minilm", "cuda:1"), ("minilm", "cpu")):
        context = build_worker_context(make_context(encoder=encoder, device=device))
        work = MeasureShard(reader=None, needs=frozenset({"embedding"}), context=context, folder=Path())
        found[encoder, device] = (*ray_engine._workers(work), context.models.device)
    assert found == {
        ("static", None): (False, 8, None),
        ("minilm", None): (True, 2, None),
        ("minilm", "cuda:1"): (True, 2, "cuda"),  # a worker sees one GPU, the first
        ("minilm", "cpu"): (False, 8, "cpu"),
    }


def test_a_cluster_that_never_gets_a_node_for_the_work_is_not_waited_for_for_ever(ray, monkeypatch):
    nodes = [{"Alive": True, "Resources": {"memory": 8e9}}, {"Alive": False, "Resources": {"CPU": 4, "memory": 8e9}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    patience = ray_engine._NodeWait(4 * 10**9)
    patience.check()
    monkeypatch.setattr(ray_engine, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(InputError, match=r"needs a node with a processor and 4\.0 GB for tasks, found none among 1 in"):
        patience.check()
    nodes[1]["Alive"] = True
    patience.check()


@pytest.mark.filterwarnings("ignore")  # of ray itself
def test_a_shard_may_take_hours_and_other_data_sets_stay_as_they_were(ray):
    DataContext = ray.data.DataContext
    context, before = DataContext(), DataContext.get_current().enable_progress_bars
    ray_engine._configure(context)
    assert context.execution_no_progress_timeout_s == 86_400
    assert not context.enable_progress_bars
    assert DataContext.get_current().enable_progress_bars == before


@dataclass(frozen=True)
class Step:
    folder: Path
    name: str = "step"
    memory_bytes: int = 0
    can_use_gpu: bool = False

    def load_models(self):
        return self


@dataclass(frozen=True)
class Deadly(Step):
    """Ends its worker each time."""

    name: str = "deadly"

    def __call__(self, number):
        os._exit(1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray itself
@pytest.mark.parametrize("method", ["map_shards", "map_shards_with_model"])
def test_a_shard_that_kills_its_workers_is_given_up(ray, one_node, tmp_path, monkeypatch, method):
    monkeypatch.setattr(ray_engine, "N_RETRIES", 1)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.raises(InputError, match="a shard was given up after 1 retries, its worker or node was lost each time"):
        list(getattr(RayEngine(), method)(Deadly(tmp_path), range(1)))


@dataclass(frozen=True)
class Slow(Step):
    """Takes half a second a shard, and tells of each attempt."""

    name: str = "slow"
    has_model: bool = True
    can_use_gpu: bool = True

    def __call__(self, number):
        attempts = self.folder / "attempts"
        attempts.mkdir(exist_ok=True)
        (attempts / f"{number}-{time.time_ns()}").touch()
        time.sleep(0.5)
        with atomic_file(self.folder / f"{number}.txt") as path:
            path.write_text(str(number))
        return {"rows": 1}


@pytest.fixture
def two_nodes(ray):
    from ray.cluster_utils import Cluster

    ray.shutdown()
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = here
    with own_ray_folder():
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
def test_a_removed_node_costs_at_most_what_it_was_at(ray, two_nodes, tmp_path, method):
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
def test_a_node_that_goes_in_mid_run_changes_nothing(kit, two_nodes, tmp_path):
    cluster, node = two_nodes
    pool = kit.write_shards(tmp_path / "pool", kit.make_rows(400, seed=9), 16)
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
        "facility-location",
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
