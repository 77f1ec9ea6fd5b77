"""Target similarity against a round robin that sorts and pops, as the paper writes it."""

import re
from collections import Counter

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, SettingsError
from thresher.features import compute, make_context
from thresher.features.container import Features
from thresher.selectors import target_similarity
from thresher.selectors.neighbors.bm25 import Bm25
from thresher.selectors.target_similarity import TargetSimilarity

RNG = np.random.default_rng(0)
REASON = "the response has no token"


def build(x, target, *, kernel="embedding", tasks=None):
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
    data = Features(row_id=pl.Series(["a"]), arrays={"embedding": np.ones((1, 2), np.float32)})
    with pytest.raises(InputError, match="target-similarity: needs rows of a target, found none; give --target FILE"):
        run(data, 1)


ROWS = [
    {"prompt": f"{verb} {i}", "completion": f"{i} {verb}ed", "source": verb}
    for i in range(8)
    for verb in ("add", "sort")
]


def test_without_a_target_nothing_is_computed(tiny_llama):
    with pytest.raises(InputError, match="target: target-similarity needs rows of a target, found none; give --target"):
        th.select(ROWS, "rds+", budget=3, model="no/such-model")


def test_rows_of_the_target_come_first(tiny_llama):
    target = [ROWS[3], ROWS[8]]
    subset = th.select(ROWS, "rds+", budget=2, target=target, model=str(tiny_llama), order="rank")
    assert sorted(row["prompt"] for row in subset.rows) == sorted(row["prompt"] for row in target)
    assert "hidden_state" in subset.manifest.content["features"]


def test_target_rows_without_a_vector_take_no_turns_and_none_at_all_is_refused(tiny_llama):
    lost = {"prompt": "ok " * 900, "completion": "never reached", "source": "lost"}
    options = {"model": str(tiny_llama), "budget": 4, "settings": {"by": "source"}}
    subset = th.select(ROWS, "rds+", target=[lost, ROWS[0], ROWS[1]], **options)
    assert subset.manifest.content["notes"] == {"n_target_rows": 2, "n_turns": 2}
    with pytest.raises(InputError, match="target: must hold rows that have a value, found none among 1"):
        th.select(ROWS, "rds+", target=[lost], **options)


def test_embeddings_are_compared_by_default_and_need_no_model():
    subset = th.select(ROWS, "target-similarity", budget=1, target=[ROWS[5]], encoder="static")
    assert subset.rows == [ROWS[5]]


def plain_sift(x, target, k, noise):
    """Pick by the posterior variance of a Gaussian process, computed anew for each candidate."""
    x, target = (np.asarray(a, np.float32).astype(np.float64) for a in (x, target))
    x, target = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, target))
    picks = []

    def variance(rows):
        seen = x[rows]
        inverse = np.linalg.inv(seen @ seen.T + noise * np.eye(len(rows)))
        shared = target @ seen.T
        return np.trace(target @ target.T - shared @ inverse @ shared.T)

    while len(picks) < k:
        left = [np.inf if i in picks else variance([*picks, i]) for i in range(len(x))]
        picks.append(int(np.flatnonzero(left <= min(left) + 1e-9)[0]))
    return picks, 1 - variance(picks) / len(target)


@pytest.mark.parametrize("n_target", [1, 4, 20])
@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_sift_picks_what_lowers_the_posterior_variance_most(n_target, noise):
    x, target = random_rows(40), random_rows(n_target, seed=2)
    scores = run(build(x, target), 7, form="sift", noise=noise)
    picks, share = plain_sift(x, target, 7, noise)
    assert scores.ranking().tolist() == picks
    assert scores.objective[-1] == pytest.approx(share)


def test_sift_leaves_out_near_copies_where_turns_take_them():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 16))
    target = x[:2] + 0.8 * rng.standard_normal((2, 16))
    x[20:30] = x[0] + 1e-3 * rng.standard_normal((10, 16))
    copies = {0, *range(20, 30)}
    turns, sift = (run(build(x, target), 8, form=form).ranking() for form in ("turns", "sift"))
    assert len(copies & set(turns.tolist())) >= 4
    assert len(copies & set(sift.tolist())) <= 1


@pytest.mark.parametrize("settings", [{"kernel": "bm25", "form": "sift"}, {"form": "sift", "by": "source"}])
def test_sift_needs_vectors_and_the_whole_target(settings):
    with pytest.raises(SettingsError, match="form=sift compares vectors"):
        TargetSimilarity(**settings)


def plain_bm25(query, documents):
    """Score documents by the formula, over words and pairs of words."""

    def grams(text):
        words = re.findall(r"\w+", text.lower())
        return Counter([*words, *(" ".join(pair) for pair in zip(words, words[1:], strict=False))])

    counts = [grams(text) for text in documents]
    mean = np.mean([sum(count.values()) for count in counts])
    scores = []
    for count in counts:
        length, score = sum(count.values()), 0.0
        for gram, times in grams(query).items():
            n_with = sum(gram in other for other in counts)
            idf = np.log(1 + (len(counts) - n_with + 0.5) / (n_with + 0.5))
            score += times * idf * count[gram] / (count[gram] + 1.5 * (1 - 0.75 + 0.75 * length / mean))
        scores.append(score)
    return np.array(scores)


def test_bm25_ranks_by_the_formula_and_needs_no_model():
    pool = th.load(
        [{"text": t} for t in ("red fox runs", "the red red fox", "a dog sleeps all day", "fox", "red day of the dog")]
    )
    query = "Where did the red fox sleep?"
    subset = th.select(pool, "bm25", budget=5, target=[{"text": query}], order="rank")
    expected = plain_bm25(query, [row["text"] for row in pool.rows(np.arange(5))])
    assert subset.kept.tolist()[:4] == np.argsort(-expected, kind="stable")[:4].tolist()
    ngram = compute(pool, {"ngram"}, make_context())["ngram"]
    target = compute(th.load([{"text": query}]), {"ngram"}, make_context())["ngram"]
    np.testing.assert_allclose(Bm25(ngram, target).score(np.array([0]))[0], expected, rtol=1e-5)


def test_bm25_of_rows_without_words_is_zero():
    pool = th.load([{"text": "!!!"}, {"text": "red fox"}, {"text": "???"}])
    ngram = compute(pool, {"ngram"}, make_context())["ngram"]
    scores = Bm25(ngram, ngram).score(np.arange(3))
    assert (scores[[0, 2]] == 0).all()
    assert scores[1, 1] > 0


def test_the_order_of_the_target_s_file_does_not_matter():
    target = [{"text": f"{word} news"} for word in ("football", "stock market", "protein", "weather", "music")]
    pool = [{"text": f"{row['text']} number {i}"} for row in target for i in range(3)]
    picked = [
        [row["text"] for row in th.select(pool, "target-similarity", budget=2, target=rows, encoder="static")]
        for rows in (target, target[::-1])
    ]
    assert picked[0] == picked[1]
