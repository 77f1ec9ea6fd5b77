"""Influence against its formula, and from rows and a target to a subset."""

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features import compute, make_context
from thresher.features.container import Features
from thresher.features.settings import GradientSettings
from thresher.selection.pool_adapters import plan_adapters
from thresher.selectors import gradient as module
from thresher.selectors.gradient import Gradient

ROWS = [{"prompt": f"add {i} and 1:", "completion": f"{i + 1} " * (1 + i % 4)} for i in range(16)]
TARGET = [
    {"prompt": "what is the fox", "completion": "quick", "task": "fox"},
    {"prompt": "add 2 and 1:", "completion": "3", "task": "sum"},
    {"prompt": "add 5 and 1:", "completion": "6", "task": "sum"},
]


def score(x, target, tasks=None, missing=None):
    context = {"target_target_gradient": target} | ({} if tasks is None else {"target_column:task": np.array(tasks)})
    data = Features(
        row_id=pl.Series([str(i) for i in range(len(x))]),
        arrays={"gradient": x},
        context=context,
        missing={} if missing is None else {"gradient": pl.Series(missing, dtype=pl.String)},
    )
    selector = Gradient(dim=6, by=None if tasks is None else "task")
    return selector.score(data, n_ranked=1, rng=np.random.default_rng(0))


@pytest.mark.parametrize("block", [1, 1 << 24])
def test_influence_is_the_largest_mean_over_the_rows_of_a_task(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK_CELLS", block)
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((9, 6)).astype(np.float16), rng.standard_normal((5, 6)).astype(np.float16)
    tasks = [0, 1, 0, 2, 1]
    product = x.astype(np.float64) @ target.astype(np.float64).T
    wanted = [max(np.mean([row[j] for j in range(5) if tasks[j] == task]) for task in range(3)) for row in product]
    np.testing.assert_allclose(score(x, target, tasks).value, wanted, atol=1e-5)
    np.testing.assert_allclose(score(x, target).value, product.mean(axis=1), atol=1e-5)


def test_a_row_without_a_gradient_is_excluded_with_its_reason():
    x = np.array([[1, 0], [np.nan, np.nan], [0, 1]], dtype=np.float16)
    found = score(x, np.array([[0, 1]], dtype=np.float16), missing=[None, "it has none", None])
    assert found.value.tolist() == [0, -np.inf, 1]
    assert found.excluded.to_list() == [None, "it has none", None]


def test_without_a_sketch_the_score_is_the_largest_influence_on_a_task():
    influence = np.array([[0.1, 0.4], [np.nan, np.nan], [0.3, -1]], dtype=np.float32)
    missing = {"target_influence": pl.Series([None, "it has none", None])}
    context = {"target_influence": influence}
    data = Features(row_id=pl.Series(["a", "b", "c"]), arrays={}, context=context, missing=missing)
    scores = Gradient(by="task").score(data, n_ranked=2, rng=np.random.default_rng(0))
    np.testing.assert_allclose(scores.value, [0.4, -np.inf, 0.3], rtol=1e-6)
    assert scores.excluded.to_list() == [None, "it has none", None]
    assert scores.notes == {"n_tasks": 2}
    assert Gradient(by="task").requirements.side_features == {"target": {"influence"}}


def test_without_a_target_it_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"target: gradient needs rows of a target, found none; give --target FILE"):
        th.select(ROWS, "gradient", budget=3, model="no/such-model")


@pytest.mark.parametrize("dim", [None, 32])
def test_from_rows_and_a_target_to_a_subset(tiny_llama, dim):
    settings = {"share": 0.5, "epochs": 2, "by": "task", **({"dim": 32} if dim else {})}
    subset = th.select(
        ROWS, "gradient", budget=4, settings=settings, target=TARGET, model=str(tiny_llama), device="cpu"
    )
    assert subset.manifest.content["notes"] == {"n_tasks": 2} | ({"n_target_rows": 3} if dim else {})
    # without a sketch the values are those of a sketch so long that no two weights share an entry
    long = GradientSettings(dim=32 if dim else 1 << 18, epochs=2)
    context = make_context(model=str(tiny_llama), device="cpu", cache=None, gradient=long)
    _, context = plan_adapters(Gradient(**settings), th.load(ROWS), context, seed=0)
    x = compute(th.load(ROWS), {"gradient"}, context)["gradient"].astype(np.float64)
    y = compute(th.load(TARGET), {"target_gradient"}, context)["target_gradient"].astype(np.float64)
    wanted = np.maximum(x @ y[0], (x @ y[1:].T).mean(axis=1))
    np.testing.assert_allclose(subset.scores.value, wanted, atol=1e-3 if dim else 8e-3)
    again = th.select(
        ROWS[::-1],
        "gradient",
        budget=4,
        settings=settings,
        target=TARGET[::-1],
        model=str(tiny_llama),
        device="cpu",
    )
    np.testing.assert_allclose(again.scores.value[::-1], subset.scores.value, atol=2e-3)


def test_rows_of_the_target_task_pull_more_than_others(tiny_llama):
    foxes = [{"prompt": f"what does fox {i} do", "completion": "the quick brown fox jumps"} for i in range(8)]
    sums = [{"prompt": f"add {i} and 1:", "completion": f"{i + 1}"} for i in range(8)]
    target = [{"prompt": "what does fox 99 do", "completion": "the quick brown fox jumps"}]
    subset = th.select(
        [*foxes, *sums],
        "gradient",
        budget=8,
        settings={"share": 0.5, "epochs": 1},
        target=target,
        model=str(tiny_llama),
        device="cpu",
    )
    assert sorted(subset.kept.tolist()) == list(range(8))
