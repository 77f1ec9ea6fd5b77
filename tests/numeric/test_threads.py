"""Threads: as many as the user allows, and nobody else's number is changed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from thresher.numeric.threads import count_cores, count_threads


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
