"""An experiment of tiny parts: 3 colors, a random BERT, one epoch."""

import sys
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from thresher.dataset import load
from thresher.experiments.cells import worker_pool
from thresher.experiments.comparison import compare
from thresher.experiments.learning_curve import learning_curve
from thresher.trainer.settings import TrainSettings


@pytest.fixture(scope="session")
def quick():
    return TrainSettings(epochs=1, batch_size=8)


@pytest.fixture(scope="session")
def pool_rows():
    rng = np.random.default_rng(0)
    things = {"red": "apple", "green": "leaf", "blue": "sky"}
    colors = list(things)
    rows = []
    for number in range(120):
        color = colors[rng.integers(3)]
        shown = color if rng.random() < 0.8 else colors[rng.integers(3)]
        rows.append({"text": f"the {things[shown]} is {number}", "label": color, "half": str(number % 2)})
    return rows


@pytest.fixture(scope="session")
def pool(pool_rows):
    return load(pool_rows[:80])


@pytest.fixture(scope="session")
def test_rows(pool_rows):
    return load(pool_rows[80:])


@pytest.fixture(scope="session")
def run_curve(pool, test_rows, tiny_bert, quick):
    """Return `learning_curve` of the pool, with all but its options given."""
    return partial(learning_curve, pool, eval=test_rows, model=tiny_bert, settings=quick)


@pytest.fixture(scope="session")
def run_comparison(pool, test_rows, tiny_bert, quick):
    """Return `compare` of the pool, with all but its options given."""
    return partial(compare, pool, eval=test_rows, model=tiny_bert, settings=quick)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Give a test a cache of its own, so that no cell is done already."""
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quick_workers(forks, monkeypatch):
    """Let the workers of a test be processes that need not import anything."""
    monkeypatch.setattr(worker_pool, "sys", SimpleNamespace(executable=str(forks.program), stderr=sys.stderr))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a context in which the machine ends every cell of so many rows, whoever runs it."""
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nkill -9 $$\n")
    deadly.chmod(0o755)

    @contextmanager
    def end_cells(is_ended):
        real = worker_pool.train_and_measure

        def run_out_of_memory(context, work):
            if is_ended(context):
                raise MemoryError("no room")
            return real(context, work)

        with monkeypatch.context() as patched:
            patched.setattr(worker_pool, "train_and_measure", run_out_of_memory)
            # of the workers alone: other processes, such as that which checks a model, live on
            patched.setattr(worker_pool, "sys", SimpleNamespace(executable=str(deadly), stderr=sys.stderr))
            yield

    return end_cells
