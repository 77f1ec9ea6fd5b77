import os
import signal

import psutil
import pytest

from thresher.experiments.bench import make_bench
from thresher.experiments.cell import Cell, key_of
from thresher.experiments.rankings import Rankings
from thresher.experiments.store import CellStore
from thresher.experiments.workers import run_cells


@pytest.fixture
def bench(pool, test_rows, tiny_bert, quick):
    return make_bench(pool, eval=test_rows, model=tiny_bert, settings=quick, metric=None)


@pytest.fixture
def cells(bench):
    rows = Rankings(pool=bench.pool, options={}).first("random", 64, seed=0).rows
    return [Cell(method="random", n_rows=n, seed=0, rows=rows[:n]) for n in (8, 16, 32, 64)]


def test_workers_give_what_this_process_gives(bench, cells, tmp_path):
    here = dict(run_cells(bench, cells, CellStore(tmp_path / "a"), n_workers=1))
    there = dict(run_cells(bench, cells, CellStore(tmp_path / "b"), n_workers=2))
    assert sorted(here) == sorted(there) == [0, 1, 2, 3]
    for index, outcome in here.items():
        assert outcome.key == there[index].key
        assert outcome.outcomes.drop("loss", "confidence").equals(there[index].outcomes.drop("loss", "confidence"))


def test_a_worker_that_is_killed_costs_its_cell_only(bench, cells, tmp_path):
    found, killed = {}, False
    for index, outcome in run_cells(bench, cells, CellStore(tmp_path), n_workers=2):
        found[index] = outcome
        if not killed:  # the other worker is at a cell, or just about to be given one
            workers = [child for child in psutil.Process().children() if "thresher" in " ".join(child.cmdline())]
            os.kill(workers[-1].pid, signal.SIGKILL)
            killed = True
    assert sorted(found) == [0, 1, 2, 3]
    reasons = [outcome.reason for outcome in found.values() if outcome.reason]
    assert len(reasons) == 1
    assert "SIGKILL" in reasons[0]


def test_no_worker_outlives_the_experiment(bench, cells, tmp_path):
    runs = run_cells(bench, cells, CellStore(tmp_path), n_workers=2)
    next(runs)
    runs.close()
    assert [child for child in psutil.Process().children() if "worker" in " ".join(child.cmdline())] == []


def test_a_cell_is_found_by_what_it_trains_on_and_not_by_who_chose_it(bench, cells):
    renamed = Cell(method="length", n_rows=16, seed=0, rows=cells[1].rows[::-1].copy())
    assert key_of(renamed.request(bench)) == key_of(cells[1].request(bench))
    other_seed = Cell(method="random", n_rows=16, seed=1, rows=cells[1].rows)
    assert key_of(other_seed.request(bench)) != key_of(cells[1].request(bench))


def test_a_broken_cell_in_the_store_is_made_anew(bench, cells, tmp_path):
    store = CellStore(tmp_path)
    ((_, first),) = run_cells(bench, cells[:1], store, n_workers=1)
    assert {path.name for path in (store.root / first.key).iterdir()} == {"manifest.json", "outcomes.parquet"}
    (store.root / first.key / "outcomes.parquet").write_bytes(b"not parquet")
    ((_, again),) = run_cells(bench, cells[:1], store, n_workers=1)
    assert not again.is_reused
    assert again.outcomes.equals(first.outcomes)


def test_the_store_counts_and_prunes(bench, cells, tmp_path):
    store = CellStore(tmp_path)
    list(run_cells(bench, cells[:2], store, n_workers=1))
    count, n_bytes = store.size()
    assert count == 2
    assert store.prune(max_bytes=0) == n_bytes
    assert store.size() == (0, 0)
