import threading
import time
from importlib.util import find_spec

import numpy as np
import polars as pl
import psutil
import pytest

from tests.local_ray import start_local_ray
from thresher.experiments.cells import ray_engine
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell
from thresher.experiments.cells.ray_engine import run_cells_on_ray
from thresher.experiments.cells.worker_pool import WorkerPool
from thresher.experiments.experiment import prepare_experiment
from thresher.experiments.rankings import Rankings

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster():
    with start_local_ray(2):
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray itself
def test_a_cluster_gives_what_this_process_gives_and_records_what_fails(
    cluster, pool, test_rows, tiny_bert, quick, tmp_path
):
    experiment = prepare_experiment(pool, eval=test_rows, model=tiny_bert, settings=quick, metric=None)
    rows = Rankings(pool=experiment.pool, options={}).rank("random", 64, seed=0).rows
    cells = [Cell(method="random", n_rows=n, seed=0, rows=rows[:n]) for n in (8, 16, 64)]
    with WorkerPool(CellCache(tmp_path / "a"), 1) as worker_pool:
        here = dict(worker_pool.run(experiment, cells))
    store = CellCache(tmp_path / "b")
    there = dict(run_cells_on_ray(experiment, cells, store))
    for index, outcome in here.items():
        assert outcome.key == there[index].key
        assert outcome.outcomes.drop("loss", "confidence").equals(there[index].outcomes.drop("loss", "confidence"))
    again = dict(run_cells_on_ray(experiment, cells, store))
    assert all(outcome.is_reused for outcome in again.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray itself
def test_a_cell_whose_process_is_killed_is_tried_again(cluster, pool, test_rows, tiny_bert, quick, tmp_path):
    experiment = prepare_experiment(pool, eval=test_rows, model=tiny_bert, settings=quick, metric=None)
    rows = Rankings(pool=experiment.pool, options={}).rank("random", 64, seed=0).rows
    cells = [Cell(method="random", n_rows=n, seed=0, rows=rows[:n]) for n in (8, 16)]
    killed, retried = [], []

    def kill_one():
        while not killed:
            for process in psutil.Process().children(recursive=True):
                try:
                    if "_run_remotely" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
                        return
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one)
    killer.start()
    store = CellCache(tmp_path)
    outcomes = dict(run_cells_on_ray(experiment, cells, store, lambda cell, reason: retried.append((cell, reason))))
    killer.join()
    assert [outcomes[index].reason for index in (0, 1)] == [None, None]
    assert len(retried) == len(killed) == 1


@pytest.mark.parametrize(("message", "is_of_environment"), [("index out of bounds", False), ("os error 11", True)])
def test_a_panic_on_a_node_is_an_answer(pool, test_rows, tiny_bert, quick, monkeypatch, message, is_of_environment):
    def panic(*_):
        raise pl.exceptions.PanicException(message)

    monkeypatch.setattr(ray_engine, "train_and_measure", panic)
    experiment = prepare_experiment(pool, eval=test_rows, model=tiny_bert, settings=quick, metric=None)
    cell = Cell(method="random", n_rows=8, seed=0, rows=np.arange(8))
    assert ray_engine._run_remotely(experiment, cell) == (f"PanicException: {message}", is_of_environment)
