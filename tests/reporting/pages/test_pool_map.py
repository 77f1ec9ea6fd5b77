"""The map of the pool: what is drawn, and where."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from thresher.dataset import load
from thresher.features import compute, fingerprints, make_context
from thresher.reporting.pages.rows import pool_map as module
from thresher.reporting.pages.rows.map_parts import find_groups, find_words
from thresher.reporting.pages.rows.pool_map import Choice, build_pool_map, count_groups


@pytest.fixture
def pool(color_rows):
    return load(color_rows)


def test_every_point_is_kept_or_dropped_as_the_choice_says(pool):
    kept = np.array([3, 14, 15, 59])
    pool_map = build_pool_map(pool, [Choice("a", kept), Choice("b", np.arange(60))], None)
    assert pool_map.panels[0].kept == kept.tolist()  # all 60, in the order of the pool
    assert sorted([*pool_map.panels[0].kept, *pool_map.panels[0].dropped]) == list(range(60))
    assert pool_map.panels[1].dropped == []
    assert pool_map.texts == pool.frame["prompt"].to_list()
    assert pool_map.notes == pool.frame["response"].to_list()


def test_the_same_pool_gives_the_same_map_and_it_fills_the_drawing(pool):
    first, second = (build_pool_map(pool, [Choice("a", np.arange(9))], None) for _ in range(2))
    assert first == second
    assert (min(first.x), max(first.x), min(first.y), max(first.y)) == (0, 1000, 0, 640)


def test_rows_of_one_kind_lie_together(pool):
    pool_map = build_pool_map(pool, [Choice("a", np.arange(9))], None)
    places = np.column_stack([pool_map.x, pool_map.y]).astype(float)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + np.diag(np.full(60, np.inf))
    label = np.array(pool_map.notes)
    assert (label[distance.argmin(axis=1)] == label).mean() > 0.9


def test_of_a_large_pool_a_sample_is_drawn_and_the_caption_tells(pool, monkeypatch):
    monkeypatch.setattr(module, "BACKGROUND", 20)
    monkeypatch.setattr(module, "KEPT", 10)
    pool_map = build_pool_map(pool, [Choice("a", np.arange(40, 60)), Choice("b", np.arange(5))], None)
    assert len(pool_map.x) <= 30
    assert f"It shows {len(pool_map.x)} of 60 rows: 20 sampled at random" in pool_map.caption
    at = {text: i for i, text in enumerate(pool.frame["prompt"])}
    for panel, kept in zip(pool_map.panels, (range(40, 60), range(5)), strict=True):
        assert {at[pool_map.texts[i]] in kept for i in panel.kept} == {True}
        assert {at[pool_map.texts[i]] in kept for i in panel.dropped} == {False}
        assert len(panel.kept) >= 5


def test_embeddings_come_from_the_cache_where_they_are(pool, monkeypatch):
    context = make_context(encoder="static")
    compute(pool, {"embedding"}, context)
    described = fingerprints({"embedding"}, context)["embedding"]

    def not_needed(*_: object) -> None:
        raise AssertionError("the cache has these rows")

    monkeypatch.setattr(module, "compute", not_needed)
    pool_map = build_pool_map(pool, [Choice("a", np.arange(9))], described)
    assert "by static-minilm-256" in pool_map.caption


def test_embeddings_that_the_cache_lacks_are_computed_by_the_static_encoder(pool):
    pool_map = build_pool_map(pool, [Choice("a", np.arange(9))], {"encoder": "another", "fingerprint": "0" * 32})
    assert "by the included static encoder" in pool_map.caption


def test_the_balance_counts_each_group(pool):
    kept = np.flatnonzero((pool.frame["response"] == "red").to_numpy())
    groups = count_groups(pool, kept, "label")
    assert groups.rows() == [("blue", 20, 0), ("green", 20, 0), ("red", 20, 20)]
    assert groups["pool"].sum() == len(pool)
    assert isinstance(groups, pl.DataFrame)


def test_values_are_colored_by_frequency_and_rare_ones_are_one():
    values = pl.Series("label", ["a"] * 3 + ["b"] * 2 + list("cdefgh") + [None])
    groups = find_groups("label", values)
    assert groups.values == ["a", "b", "(none)", "c", "d", "e", "3 others"]
    assert groups.of == [0, 0, 0, 1, 1, 3, 4, 5, 6, 6, 6, 2]


def test_the_words_of_a_part_are_those_that_are_frequent_there_alone():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.integers(0, 100, 80), rng.integers(900, 1000, 80)])
    y = rng.integers(0, 640, 160)
    texts = [f"the harbor is wide {i}" for i in range(80)] + [f"the violin is wide {i}" for i in range(80)]
    words = find_words(x, y, texts)
    assert len(words) >= 2
    assert all(word.text == ("harbor" if word.x < 500 else "violin") for word in words)
    assert find_words(x, y, ["1 2 3"] * 160) == []
    assert find_words(x[:9], y[:9], texts[:9]) == []


def test_rows_that_are_not_laid_out_lie_beside_the_ones_they_resemble(pool, monkeypatch):
    monkeypatch.setattr(module, "BACKGROUND", 24)
    monkeypatch.setattr(module, "KEPT", 6)
    context = make_context(encoder="static")
    compute(pool, {"embedding"}, context)
    described = fingerprints({"embedding"}, context)["embedding"]
    kept = np.arange(0, 60, 5)
    columns = {"label": pool.frame["response"].cast(pl.String)}
    choice = [Choice("a", kept)]
    pool_map = build_pool_map(pool, choice, described, columns)
    small, n = pool_map.small, len(pool_map.x)
    assert n + len(small.x) == len(pool_map.places.line) == 60
    assert "It shows all 60 rows" in pool_map.caption
    # each of them once, and kept as the choice says
    at = [line - 1 for line in pool_map.places.line]
    assert sorted(at) == list(range(60))
    assert small.is_kept == [row in kept for row in at[n:]]
    values = pool_map.groups[0].values
    assert [values[i] for i in small.of[0]] == [columns["label"][row] for row in at[n:]]
    laid_out, places = np.column_stack([pool_map.x, pool_map.y]), np.column_stack([small.x, small.y])
    nearest = np.linalg.norm(places[:, None] - laid_out[None], axis=2).argmin(axis=1)
    assert np.mean([pool_map.groups[0].of[i] == own for i, own in zip(nearest, small.of[0], strict=True)]) > 0.85
    assert build_pool_map(pool, choice, described, columns) == pool_map


def test_there_are_no_small_dots_where_vectors_are_missing_or_several_panels_are_shown(pool, monkeypatch):
    monkeypatch.setattr(module, "BACKGROUND", 24)
    other = {"encoder": "another", "fingerprint": "0" * 32}
    assert build_pool_map(pool, [Choice("a", np.arange(9))], other).small is None
    assert build_pool_map(pool, [Choice("a", np.arange(9)), Choice("b", np.arange(3))], None).small is None
