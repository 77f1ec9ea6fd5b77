"""Rows in memory for rules, and one call that judges them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.curation import Rows
from thresher.features import Features


@pytest.fixture
def rows():
    """Return a function: columns and feature arrays -> Rows."""

    def make(columns, missing=None, **features):
        dataset = th.load(pl.DataFrame(columns), id_column="id" if "id" in columns else None)
        arrays = {name.replace("__", ":"): np.asarray(values) for name, values in features.items()}
        return Rows(
            dataset=dataset,
            features=Features(row_id=dataset.frame["row_id"], arrays=arrays, missing=missing or {}),
        )

    return make


@pytest.fixture
def check():
    """Return a function: rule and rows -> verdict."""

    def judge(rule, pool, *, existing=None, eval=None, seed=0):
        return rule.check(pool, existing=existing, eval=eval, rng=np.random.default_rng(seed))

    return judge
