import errno
import os
import signal
from dataclasses import replace

import numpy as np
import polars as pl
import psutil
import pytest

from thresher.dataset import load
from thresher.errors import DeviceMemoryError, OutputError
from thresher.experiments.cells import worker_pool
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell, compute_cell_key
from thresher.experiments.cells.worker_pool import WorkerPool
from thresher.experiments.experiment import prepare_experiment
from thresher.experiments.rankings import Rankings


@pytest.fixture
def experiment(pool, test_rows, tiny_bert, quick):
    return prepare_experiment(pool, eval=test_rows, model=tiny_bert, settings=quick, metric=None)


def run_cells(experiment, cells, store, *, n_workers):
    with WorkerPool(store, n_workers) as worker_pool:
        yield from worker_pool.run(experiment, cells)


@pytest.fixture
def cells(experiment):
    rows = Rankings(pool=experiment.pool, options={}).rank("random", 64, seed=0).rows
    return [Cell(method="random", n_rows=n, seed=0, rows=rows[:n]) for n in (8, 16, 32, 64)]


def test_workers_give_what_this_process_gives(experiment, cells, tmp_path):
    here = dict(run_cells(experiment, cells, CellCache(tmp_path / "a"), n_workers=1))
    there = dict(run_cells(experiment, cells, CellCache(tmp_path / "b"), n_workers=2))
    assert sorted(here) == sorted(there) == [0, 1, 2, 3]
    for index, outcome in here.items():
        assert outcome.key == there[index].key
        assert outcome.outcomes.drop("loss", "confidence").equals(there[index].outcomes.drop("loss", "confidence"))


def list_workers():
    return [child for child in psutil.Process().children() if "worker_process" in " ".join(child.cmdline())]


def test_the_cell_of_a_killed_worker_is_tried_again(quick_workers, experiment, cells, tmp_path):
    outcomes, retried = {}, []
    with WorkerPool(CellCache(tmp_path), 2, lambda cell, reason: retried.append((cell.n_rows, reason))) as pool:
        for index, outcome in pool.run(experiment, cells):
            if not outcomes:  # the other worker is at a cell, or just about to be given one
                os.kill(list_workers()[-1].pid, signal.SIGKILL)
            outcomes[index] = outcome
    assert sorted(outcomes) == [0, 1, 2, 3]
    assert [outcome.reason for outcome in outcomes.values()] == [None] * 4
    assert [reason for _, reason in retried] == ["the worker process was ended by SIGKILL, as when memory runs out"]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_cell_that_the_machine_ends_each_time_is_left_unfinished(experiment, cells, tmp_path, monkeypatch, n_workers):
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nkill -9 $$\n")
    deadly.chmod(0o755)
    retried, cache = [], CellCache(tmp_path / "cells")
    with monkeypatch.context() as patched:
        patched.setattr(worker_pool.sys, "executable", str(deadly))
        patched.setattr(worker_pool, "train_and_measure", raise_error(MemoryError("no room")))
        with WorkerPool(cache, n_workers, lambda _, reason: retried.append(reason)) as pool:
            outcomes = dict(pool.run(experiment, cells[:2]))
    assert all(outcome.is_unfinished and outcome.outcomes is None for outcome in outcomes.values())
    assert "SIGKILL" in outcomes[0].reason
    # in this process and twice in a fresh one; or three times beside others and once alone
    assert len(retried) == 2 * (3 if n_workers == 1 else 4)
    assert ("MemoryError: no room" in retried) == (n_workers == 1)
    ((_, outcome),) = run_cells(experiment, cells[:1], cache, n_workers=1)
    assert (outcome.reason, outcome.is_unfinished) == (None, False)


def raise_error(error):
    def run(*_):
        raise error

    return run


def test_no_worker_outlives_the_experiment(quick_workers, experiment, cells, tmp_path):
    runs = run_cells(experiment, cells, CellCache(tmp_path), n_workers=2)
    next(runs)
    runs.close()
    assert list_workers() == []


def test_a_cell_is_found_by_what_it_trains_on_and_not_by_who_chose_it(experiment, cells):
    renamed = Cell(method="length", n_rows=16, seed=0, rows=cells[1].rows[::-1].copy())
    assert compute_cell_key(renamed.build_context(experiment)) == compute_cell_key(cells[1].build_context(experiment))
    other_seed = Cell(method="random", n_rows=16, seed=1, rows=cells[1].rows)
    assert compute_cell_key(other_seed.build_context(experiment)) != compute_cell_key(
        cells[1].build_context(experiment)
    )


def test_a_broken_cell_in_the_store_is_made_anew(experiment, cells, tmp_path):
    store = CellCache(tmp_path)
    ((_, first),) = run_cells(experiment, cells[:1], store, n_workers=1)
    assert {path.name for path in (store.root / first.key).iterdir()} == {"manifest.json", "outcomes.parquet"}
    (store.root / first.key / "outcomes.parquet").write_bytes(b"not parquet")
    ((_, again),) = run_cells(experiment, cells[:1], store, n_workers=1)
    assert not again.is_reused
    assert again.outcomes.equals(first.outcomes)


def test_a_broken_cell_that_cannot_be_deleted_is_told(tmp_path, monkeypatch):
    store = CellCache(tmp_path)
    (store.root / "key").mkdir(parents=True)
    (store.root / "key" / "manifest.json").write_text("{")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(OutputError, match=r"cannot be deleted \(Permission denied\); delete it yourself"):
        store.load("key")


def test_the_store_counts_and_prunes(experiment, cells, tmp_path):
    store = CellCache(tmp_path)
    list(run_cells(experiment, cells[:2], store, n_workers=1))
    count, n_bytes = store.size()
    assert count == 2
    assert store.prune(max_bytes=0) == n_bytes
    assert store.size() == (0, 0)


def test_a_worker_pool_serves_several_experiments_with_the_same_workers(
    quick_workers, experiment, cells, tmp_path, test_rows
):
    with WorkerPool(CellCache(tmp_path), 2) as worker_pool:
        first = dict(worker_pool.run(experiment, cells[:2]))
        pids = {worker.process.pid for worker in worker_pool._workers}
        second = dict(worker_pool.run(replace(experiment, test=test_rows.take(np.arange(10))), cells[:2]))
        assert {worker.process.pid for worker in worker_pool._workers} == pids
    assert {len(outcome.outcomes) for outcome in first.values()} == {40}
    assert {len(outcome.outcomes) for outcome in second.values()} == {10}


def test_workers_that_cannot_start_are_told_and_not_waited_for(experiment, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_pool.sys, "executable", "/bin/false")
    with pytest.raises(OutputError, match="cannot start .exit code 1."):
        list(run_cells(experiment, cells[:2], CellCache(tmp_path), n_workers=2))


NO_THREAD = 'ThreadPoolBuildError { kind: IOError(Os { code: 11, kind: WouldBlock, message: "unavailable" }) }'


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        DeviceMemoryError("no room", is_shared=True),
        pl.exceptions.PanicException(NO_THREAD),
    ],
)
def test_what_the_machine_ended_here_is_tried_again_in_a_fresh_process(
    quick_workers, experiment, cells, tmp_path, monkeypatch, error
):
    monkeypatch.setattr(worker_pool, "train_and_measure", raise_error(error))
    ((_, outcome),) = run_cells(experiment, cells[:1], CellCache(tmp_path), n_workers=1)
    assert outcome.reason is None
    assert outcome.outcomes is not None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("of the rows"),
        DeviceMemoryError("a step is too large"),
        pl.exceptions.PanicException("index out of bounds: the len is 3 but the index is 3"),
    ],
)
def test_what_the_rows_or_settings_cause_is_their_result(experiment, cells, tmp_path, monkeypatch, error):
    monkeypatch.setattr(worker_pool, "train_and_measure", raise_error(error))
    ((_, outcome),) = run_cells(experiment, cells[:1], CellCache(tmp_path), n_workers=1)
    assert (outcome.reason, outcome.is_unfinished) == (f"{type(error).__name__}: {error}", False)
    assert [path for path in CellCache(tmp_path).root.iterdir() if "partial" in path.name] == []


def test_a_full_disk_ends_the_experiment(experiment, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_pool, "train_and_measure", raise_error(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        list(run_cells(experiment, cells[:1], CellCache(tmp_path), n_workers=1))


def test_a_metric_that_is_not_a_number_fails_the_cell(pool, test_rows, tiny_bert, quick, cells, tmp_path, monkeypatch):
    experiment = prepare_experiment(pool, eval=test_rows, model=tiny_bert, settings=quick, metric="loss")
    real = worker_pool.train_and_measure

    def diverge(context, work):
        outcomes, facts = real(context, work)
        return outcomes.with_columns(loss=pl.when(pl.int_range(pl.len()) < 3).then(None).otherwise("loss")), facts

    monkeypatch.setattr(worker_pool, "train_and_measure", diverge)
    ((_, outcome),) = run_cells(experiment, cells[:1], CellCache(tmp_path), n_workers=1)
    assert outcome.outcomes is None
    assert outcome.reason == "loss is not a finite number for 3 of 40 test rows"


def test_each_worker_gets_a_gpu_of_those_that_are_ours(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [worker_pool._build_environment(slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["2", "3"]


def test_turns_and_tools_count_where_a_column_names_the_rows(tiny_llama, quick, tmp_path):
    def key(tool):
        talk = [{"role": "user", "content": "add 2 and 3"}, {"role": "assistant", "content": "5"}]
        tools = [{"type": "function", "function": {"name": "add", "description": tool}}]
        rows = [{"id": str(number), "messages": talk, "tools": tools} for number in range(4)]
        data = load(rows, id_column="id")
        experiment = prepare_experiment(
            data.take(np.arange(2)), eval=question(), model=tiny_llama, settings=quick, metric=None
        )
        return compute_cell_key(Cell(method="random", n_rows=2, seed=0, rows=np.arange(2)).build_context(experiment))

    def question():
        sums = (("what is 1 and 1", "2"), ("what is 2 and 2", "4"))
        talks = [[{"role": "user", "content": ask}, {"role": "assistant", "content": said}] for ask, said in sums]
        return load([{"messages": talk} for talk in talks])

    assert key("adds two numbers") != key("adds numbers")
