"""Threads: as many as the user allows, and nobody else's number is changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from thresher.features.labels.cross_fit import LabeledTexts, predict_folds
from thresher.numeric import threads
from thresher.numeric.threads import count_cores, count_threads, limit_blas
from thresher.selectors.pilot.student import fit_student


@pytest.mark.parametrize(("asked", "expected"), [("3", 3), ("0", 1), ("", count_cores()), ("many", count_cores())])
def test_the_environment_says_how_many_threads_there_are(monkeypatch, asked, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert count_threads() == expected


def test_choosing_rows_leaves_the_threads_of_torch_alone():
    # numba's own count is larger here than that of torch: asking numba for it would set both
    code = (
        "import numpy as np, polars as pl, torch\n"
        "from thresher.features.container import Features\n"
        "from thresher.selectors.facility_location import FacilityLocation\n"
        "x = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)\n"
        "features = Features(row_id=pl.Series([str(i) for i in range(50)]), arrays={'embedding': x})\n"
        "for kernel in ('dense', 'sparse'):\n"
        "    FacilityLocation(kernel=kernel).score(features, n_ranked=5, rng=np.random.default_rng(0))\n"
        "print(torch.get_num_threads())\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1"


def count_blas_threads() -> set[int]:
    """Return the numbers of threads of what is limited; faiss brings a library of its own."""
    return {library.num_threads for library in threads._find_blas().lib_controllers}


@pytest.fixture
def two_blas_threads():
    with threads._find_blas().limit(limits=2):
        yield


def test_small_products_use_one_thread_and_later_ones_as_many_as_before(two_blas_threads):
    assert count_blas_threads() == {2}
    with limit_blas():
        assert count_blas_threads() == {1}
    assert count_blas_threads() == {2}
    with pytest.raises(ValueError, match="inside"), limit_blas():
        raise ValueError("inside")
    assert count_blas_threads() == {2}


@pytest.mark.parametrize("is_first_out", [True, False])
def test_the_last_thread_to_leave_restores_what_was_before(two_blas_threads, is_first_out):
    is_inside, may_leave = threading.Event(), threading.Event()

    def stay():
        with limit_blas():
            is_inside.set()
            may_leave.wait(10)

    def let_go():
        may_leave.set()
        first.join(10)

    first = threading.Thread(target=stay)
    first.start()
    is_inside.wait(10)
    try:
        with limit_blas():
            if is_first_out:
                let_go()
            assert count_blas_threads() == {1}
        assert count_blas_threads() == ({2} if is_first_out else {1})
    finally:
        let_go()
    assert count_blas_threads() == {2}


def test_the_library_of_faiss_is_left_alone():
    import faiss  # noqa: F401  (loads it)

    threads._find_blas.cache_clear()
    found = [library.filepath for library in threads._find_blas().lib_controllers]
    assert found
    assert not any("faiss" in path for path in found)


def test_regressions_are_fitted_on_one_thread(two_blas_threads, monkeypatch):
    # two threads wait for each other: 10,000 rows of 77 classes took 20 times the processor time
    from sklearn.linear_model import LogisticRegression

    seen = []
    fit = LogisticRegression.fit

    def record(self, *args, **kwargs):
        seen.append(count_blas_threads())
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", record)
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    label = np.arange(40) % 2
    fit_student(x, label)
    rows = LabeledTexts.from_rows(np.arange(40), label, n_texts=40, n_classes=2)
    list(predict_folds(rows, [x], [0]))
    assert seen == [{1}, {1}]
