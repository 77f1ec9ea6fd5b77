import os

import pytest

from thresher.experiments.cell import Cell
from thresher.experiments.cell_cache import CellStore
from thresher.experiments.experiment import make_bench
from thresher.experiments.rankings import Rankings
from thresher.experiments.ray_engine import run_cells_on_ray
from thresher.experiments.worker_pool import Crew

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray itself
def test_a_cluster_gives_what_this_process_gives_and_records_what_fails(
    cluster, pool, test_rows, tiny_bert, quick, tmp_path
):
    bench = make_bench(pool, eval=test_rows, model=tiny_bert, settings=quick, metric=None)
    rows = Rankings(pool=bench.pool, options={}).first("random", 64, seed=0).rows
    cells = [Cell(method="random", n_rows=n, seed=0, rows=rows[:n]) for n in (8, 16, 64)]
    with Crew(CellStore(tmp_path / "a"), 1) as crew:
        here = dict(crew.run(bench, cells))
    store = CellStore(tmp_path / "b")
    there = dict(run_cells_on_ray(bench, cells, store))
    for index, outcome in here.items():
        assert outcome.key == there[index].key
        assert outcome.outcomes.drop("loss", "confidence").equals(there[index].outcomes.drop("loss", "confidence"))
    again = dict(run_cells_on_ray(bench, cells, store))
    assert all(outcome.is_reused for outcome in again.values())
