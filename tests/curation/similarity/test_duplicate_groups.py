"""Exact, near and semantic duplicates against brute force, and in parts as at once."""

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thresher as th
from thresher.curation import Rows
from thresher.curation.rules.exact_duplicates import ExactDuplicates
from thresher.curation.rules.near_duplicates import NearDuplicates, choose_band_size
from thresher.curation.rules.semantic_duplicates import SemanticDuplicates
from thresher.curation.similarity.shingles import build_shingles
from thresher.dataset.normalize import normalize_texts
from thresher.errors import SettingsError
from thresher.features import Features


def text_rows(texts, **features):
    dataset = th.load(pl.DataFrame({"id": [f"r{i}" for i in range(len(texts))], "text": texts}), id_column="id")
    arrays = {name: np.asarray(values) for name, values in features.items()}
    return Rows(dataset=dataset, features=Features(row_id=dataset.frame["row_id"], arrays=arrays))


def judged(rule, pool, existing=None):
    return rule.check(pool, existing=existing, eval=None, rng=np.random.default_rng(0))


def pieces(text, n):
    plain = normalize_texts(pl.Series([text]), punctuation=True)[0]
    return {plain[i : i + n] for i in range(max(len(plain) - n + 1, 1))}


def greedy(n, similarity, threshold):
    """Return for each row the most similar earlier row that stays, or None: the slow reference."""
    stays, of = [], []
    for i in range(n):
        near = [(similarity(i, j), -j) for j in stays if similarity(i, j) >= threshold]
        of.append(-max(near)[1] if near else None)
        if not near:
            stays.append(i)
    return of


def mutated_texts(n, seed):
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 7))) for _ in range(60)]
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(n // 2)]
    while len(texts) < n:
        row = rng.choice(texts).split()
        for _ in range(rng.randint(0, 5)):
            row[rng.randrange(20)] = rng.choice(words)
        texts.append(" ".join(row))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("threshold", [0.4, 0.6, 0.8])
def test_near_duplicates_are_those_of_brute_force(threshold):
    texts = mutated_texts(160, seed=1)
    sets = [pieces(text, 5) for text in texts]
    expected = greedy(len(texts), lambda i, j: np.float64(len(sets[i] & sets[j]) / len(sets[i] | sets[j])), threshold)
    verdict = judged(NearDuplicates(threshold=threshold), text_rows(texts))
    repeated = [None if of is None else int(of[1:]) for of in verdict.duplicate_of.to_list()]
    differing = [i for i in range(len(texts)) if (repeated[i] is None) != (expected[i] is None)]
    assert len(differing) <= 1, "one pair in a hundred at the very threshold may be missed"
    assert sum(of is not None for of in expected) > 20
    for i, of in enumerate(repeated):
        if of is not None:
            jaccard = len(sets[i] & sets[of]) / len(sets[i] | sets[of])
            assert verdict.similarity[i] == pytest.approx(jaccard, abs=1e-6)
            assert repeated[of] is None, "the row that is named stays"


def test_bands_find_a_pair_at_the_threshold_almost_surely():
    for threshold in (0.3, 0.5, 0.7, 0.9):
        rows = choose_band_size(threshold, 128)
        assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99
        assert 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.99


@pytest.mark.parametrize("rule", [ExactDuplicates(), NearDuplicates(threshold=0.6)])
def test_judging_in_parts_is_judging_at_once(rule):
    texts = mutated_texts(120, seed=2) + ["Some text", "some  TEXT", "another"]
    whole = judged(rule, text_rows(texts)).is_dropped
    first = judged(rule, text_rows(texts[:70])).is_dropped
    kept = [text for text, gone in zip(texts[:70], first, strict=True) if not gone]
    second = judged(rule, text_rows(texts[70:]), existing=text_rows(kept))
    assert np.array_equal(whole, np.concatenate([first, second.is_dropped]))
    assert set(second.duplicate_in.drop_nulls()) == {"pool", "existing"}


def test_semantic_duplicates_are_those_of_all_pairs():
    rng = np.random.default_rng(3)
    center = rng.normal(size=(30, 16))
    x = (center[rng.integers(30, size=200)] + 0.35 * rng.normal(size=(200, 16))).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    expected = greedy(200, lambda i, j: cosine[i, j], 0.9)
    verdict = judged(SemanticDuplicates(threshold=0.9), text_rows([f"text {i}" for i in range(200)], embedding=x))
    repeated = [None if of is None else int(of[1:]) for of in verdict.duplicate_of.to_list()]
    assert repeated == expected
    assert 20 < sum(of is not None for of in repeated) < 180


def test_clusters_find_most_of_what_all_pairs_find():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(600, 16)).astype(np.float32)
    x[300:] = x[:300] + 0.05 * rng.normal(size=(300, 16)).astype(np.float32)
    pool = text_rows([f"text {i}" for i in range(600)], embedding=x)
    exact = judged(SemanticDuplicates(threshold=0.95), pool).is_dropped
    clustered = judged(SemanticDuplicates(threshold=0.95, exact_rows=10, cluster_rows=40), pool)
    assert exact[300:].all()
    assert clustered.is_dropped[exact].mean() > 0.97
    assert not clustered.is_dropped[~exact].any()
    assert clustered.notes["clusters"] > 10


def test_the_preferred_row_stays():
    texts = ["same words here", "Same words here", "same  words here"]
    dataset = th.load(pl.DataFrame({"id": ["a", "b", "c"], "text": texts, "stars": [1, 5, 3]}), id_column="id")
    features = Features(row_id=dataset.frame["row_id"], arrays={"number:stars": np.array([1.0, 5.0, 3.0])})
    pool = Rows(dataset=dataset, features=features)
    for keep, best in (("first", "a"), ("highest:stars", "b"), ("lowest:stars", "a"), ("longest", "c")):
        rule = ExactDuplicates(keep=keep)
        assert rule.requirements.features == (frozenset({"number:stars"}) if "stars" in keep else frozenset())
        verdict = judged(rule, pool)
        assert pool.row_id.filter(~pl.Series(verdict.is_dropped)).to_list() == [best]
        assert set(verdict.cluster) == {best}


def test_what_is_ignored_is_a_setting():
    texts = ["A b", "a b", "a  b", "a-b", "\uff41 b"]
    assert judged(ExactDuplicates(), text_rows(texts)).is_dropped.tolist() == [False, True, True, False, True]
    plain = ExactDuplicates(ignore_case=False, ignore_space=False, ignore_unicode_form=False)
    assert not judged(plain, text_rows(texts)).is_dropped.any()
    assert (
        judged(ExactDuplicates(ignore_punctuation=True), text_rows(texts)).is_dropped.tolist() == [False] + [True] * 4
    )


def test_texts_of_punctuation_alone_are_not_all_equal():
    rule = ExactDuplicates(ignore_punctuation=True)
    assert judged(rule, text_rows(["???", "!!!", "???"])).is_dropped.tolist() == [False, False, True]


def test_another_label_is_no_duplicate(rows, check):
    pool = rows({"id": ["a", "b", "c"], "text": ["one and the same text"] * 3, "label": ["x", "y", "x"]})
    for rule in (ExactDuplicates(), NearDuplicates()):
        assert check(rule, pool).is_dropped.tolist() == [False, False, True]
    assert check(NearDuplicates(same_label=False), pool).is_dropped.tolist() == [False, True, True]


def test_a_row_that_repeats_an_existing_one_names_it_with_its_place():
    verdict = judged(ExactDuplicates(), text_rows(["new", "old"]), existing=text_rows(["old", "old"]))
    assert verdict.is_dropped.tolist() == [False, True]
    assert verdict.duplicate_of[1] == "r0"
    assert verdict.duplicate_in[1] == "existing"
    assert "you already have" in verdict.explanation[1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=12), st.integers(1, 6), st.sampled_from(["word", "character"])
)
def test_shingles_are_the_distinct_pieces(texts, n, unit):
    series = normalize_texts(pl.Series(texts, dtype=pl.String))
    sets = build_shingles(series, n=n, unit=unit)
    for text, size in zip(series, sets.sizes(), strict=True):
        parts = text.split(" ") if unit == "word" else list(text)
        parts = [part for part in parts if part] if unit == "word" else parts
        width = min(n, len(parts))
        expected = {tuple(parts[i : i + width]) for i in range(len(parts) - width + 1)} if parts else set()
        assert size == len(expected)


def test_rows_of_one_template_do_not_make_the_comparison_quadratic():
    texts = [f"translate the following sentence into french please number {i:05d}" for i in range(3000)]
    verdict = judged(NearDuplicates(threshold=0.7), text_rows(texts))
    assert not verdict.is_dropped.any()
    assert verdict.notes["pairs_verified"] < 3000 * 40


@pytest.mark.parametrize("seed", range(3))
def test_every_copy_found_in_clusters_is_similar_to_the_row_that_stays(seed):
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(40, 6))
    x = (center[rng.integers(40, size=600)] + 0.35 * rng.normal(size=(600, 6))).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pool = text_rows([f"text {i}" for i in range(600)], embedding=x)
    verdict = judged(SemanticDuplicates(threshold=0.9, exact_rows=10, cluster_rows=40), pool)
    copies = np.flatnonzero(verdict.is_dropped)
    named = np.array([int(verdict.duplicate_of[int(i)][1:]) for i in copies])
    assert not verdict.is_dropped[named].any()
    assert ((unit[copies] * unit[named]).sum(axis=1) >= 0.9 - 1e-5).all()


def test_a_pair_exactly_at_the_threshold_is_a_duplicate():
    words = [f"w{i}" for i in range(100)]
    rule = NearDuplicates(threshold=0.55, unit="word", n_gram=1, permutations=512)
    assert judged(rule, text_rows([" ".join(words), " ".join(words[:55])])).similarity[1] == pytest.approx(0.55)


def test_the_preferred_row_needs_one_number_per_row():
    pool = text_rows(["a", "b"], embedding=np.eye(2, dtype=np.float32))
    with pytest.raises(SettingsError, match="keep: 'highest:embedding' must name one number per row, got 2"):
        judged(ExactDuplicates(keep="highest:embedding"), pool)


def test_a_name_of_a_feature_and_of_a_column_is_not_guessed():
    rows = [{"text": "the same words", "length": n} for n in (1, 9)]
    with pytest.raises(SettingsError, match="write highest:number:length for the column"):
        th.curate(rows, ["exact-duplicates"], settings={"exact-duplicates": {"keep": "highest:length"}})
    kept = th.curate(rows, ["exact-duplicates"], settings={"exact-duplicates": {"keep": "highest:number:length"}})
    assert [row["length"] for row in kept.rows] == [9]
