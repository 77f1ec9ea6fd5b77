"""Kernels are compiled ahead of time, and a compilation is told."""

import numpy as np
import pytest
from numba import njit
from numba.core import event

import thresher as th
import thresher.numeric.numba_jit
from thresher.numeric.compilation import COMPILING, announce_compilation
from thresher.selection.warm_up import compile_kernels


class Counter(event.Listener):
    def __init__(self):
        self.names = []

    def on_start(self, event):
        self.names.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event):
        pass


@pytest.fixture
def compiled():
    """Return the list of kernels that are compiled during a test."""
    with event.install_listener("numba:compile", counter := Counter()):
        yield counter.names


def test_after_it_the_usual_commands_compile_nothing(compiled, tmp_path):
    compile_kernels()
    compiled.clear()
    rows = th.load([{"text": f"listing {i} with {i % 13} parts", "label": str(i % 5)} for i in range(1000)])
    for method in ("facility-location", "k-center"):
        th.select(rows, method, budget="10%", encoder="static", device="cpu")
    th.select(rows, "delift", settings={"kernel": "embedding"}, budget="10%", encoder="static", device="cpu")
    th.curate(rows, eval=rows.take(np.arange(9)))
    (tmp_path / "large.csv").write_text("text,label\n" + "".join(f'"row, {i}","{i % 3}"\n' for i in range(100_000)))
    assert len(th.load(tmp_path / "large.csv")) == 100_000
    assert compiled == []


def test_the_first_compilation_is_told_and_no_other(compiled):
    told = []
    announce_compilation(told.append)
    for seed in (1.5, 2.5):

        @njit
        def add(x, seed=seed):
            return x + seed

        add(np.arange(3))
    assert compiled.count("add") == 2
    assert told == [COMPILING]
