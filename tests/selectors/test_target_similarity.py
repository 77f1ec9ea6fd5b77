"""Target similarity against a round robin that sorts and pops, as the paper writes it."""

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features.container import Features
from thresher.selectors import target_similarity
from thresher.selectors.target_similarity import TargetSimilarity

RNG = np.random.default_rng(0)
REASON = "the response has no token"


def build(x, target, *, kernel="hidden_state", tasks=None):
    context = {f"target_{kernel}": np.asarray(target, np.float32)}
    if tasks is not None:
        context["target_column:source"] = np.asarray(tasks)
    missing = pl.Series([REASON if np.isnan(row).any() else None for row in x], dtype=pl.String)
    return Features(
        row_id=pl.Series([f"{i:06d}" for i in range(len(x))]),
        arrays={kernel: np.asarray(x, np.float32)},
        context=context,
        missing={kernel: missing},
    )


def run(data, n_ranked, **settings):
    return TargetSimilarity(**settings).score(data, n_ranked=n_ranked, rng=RNG)


def plain_round_robin(x, target, k, tasks=None):
    x, target = (np.asarray(a, np.float32).astype(np.float64) for a in (x, target))
    x, target = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, target))
    similarity = target @ x.T
    if tasks is not None:
        similarity = np.array([similarity[np.asarray(tasks) == task].max(axis=0) for task in sorted(set(tasks))])
    lists = [sorted(range(len(x)), key=lambda d, row=row: (-round(row[d], 6), d)) for row in similarity]
    picks = []
    while len(picks) < k:
        for nearest in lists:
            while nearest and nearest[0] in picks:
                nearest.pop(0)
            if nearest and len(picks) < k:
                picks.append(nearest.pop(0))
    return picks


def random_rows(n=80, d=8, seed=1):
    x = np.random.default_rng(seed).standard_normal((n, d))
    x[n // 2 : n // 2 + 5] = x[0]  # repeats
    return x


@pytest.mark.parametrize("n_target", [1, 3, 30])
def test_picks_equal_a_plain_round_robin_up_to_all_rows(n_target):
    x, target = random_rows(), random_rows(n_target, seed=2)
    for k in (1, 17, 80):
        assert run(build(x, target), k).ranking().tolist() == plain_round_robin(x, target, k)


def test_tasks_take_turns_by_their_nearest_target_row():
    x, target, tasks = random_rows(), random_rows(12, seed=2), [0] * 9 + [1] * 2 + [2]
    found = run(build(x, target, tasks=tasks), 40, by="source")
    assert found.ranking().tolist() == plain_round_robin(x, target, 40, tasks)
    assert found.notes == {"n_target_rows": 12, "n_turns": 3}


def test_blocks_change_no_pick(monkeypatch):
    data = build(random_rows(), random_rows(12, seed=2), tasks=[0] * 12)
    expected = run(data, 30, by="source").ranking().tolist()
    monkeypatch.setattr(target_similarity, "BLOCK_CELLS", 200)
    assert run(data, 30, by="source").ranking().tolist() == expected


def test_a_row_without_a_vector_is_excluded_with_its_reason():
    x = random_rows()
    x[[2, 9]] = np.nan
    found = run(build(x, x[:1]), 80)
    assert found.n_ranked == 78
    assert found.excluded.is_not_null().arg_true().to_list() == [2, 9]


def test_a_target_is_asked_for():
    data = Features(row_id=pl.Series(["a"]), arrays={"hidden_state": np.ones((1, 2), np.float32)})
    with pytest.raises(InputError, match="target-similarity: needs rows of a target, found none; give --target FILE"):
        run(data, 1)


ROWS = [
    {"prompt": f"{verb} {i}", "completion": f"{i} {verb}ed", "source": verb}
    for i in range(8)
    for verb in ("add", "sort")
]


def test_without_a_target_nothing_is_computed(tiny_llama):
    with pytest.raises(InputError, match="target: target-similarity needs rows of a target, found none; give --target"):
        th.select(ROWS, "target-similarity", budget=3, model="no/such-model")


def test_rows_of_the_target_come_first(tiny_llama):
    target = [ROWS[3], ROWS[8]]
    subset = th.select(ROWS, "target-similarity", budget=2, target=target, model=str(tiny_llama), order="rank")
    assert sorted(row["prompt"] for row in subset.rows) == sorted(row["prompt"] for row in target)
    assert "hidden_state" in subset.manifest.content["features"]


def test_target_rows_without_a_vector_take_no_turns_and_none_at_all_is_refused(tiny_llama):
    lost = {"prompt": "ok " * 900, "completion": "never reached", "source": "lost"}
    options = {"model": str(tiny_llama), "budget": 4, "settings": {"by": "source"}}
    subset = th.select(ROWS, "target-similarity", target=[lost, ROWS[0], ROWS[1]], **options)
    assert subset.manifest.content["notes"] == {"n_target_rows": 2, "n_turns": 2}
    with pytest.raises(InputError, match="target: must hold rows that have a value, found none among 1"):
        th.select(ROWS, "target-similarity", target=[lost], **options)


def test_embeddings_can_take_the_place_of_hidden_states():
    subset = th.select(
        ROWS, "target-similarity", budget=1, target=[ROWS[5]], settings={"kernel": "embedding"}, encoder="static"
    )
    assert subset.rows == [ROWS[5]]
