import json

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, ManifestError
from thresher.subset import open_subset, read_subset

WORDS = ["shirt", "lamp", "phone", "garden", "oak", "steel", "red", "blue", "large", "small", "case", "toy", "cotton"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


def make_rows(n=80, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {"text": " ".join(rng.choice(WORDS, 6)) + f" {number}", "label": f"class {number % 4}", "price": number / 7}
        for number in range(n)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


METHODS = ["random", "stratified", "length", "k-center", "deft-ucs", "facility-location", "herding"]


@pytest.mark.parametrize("method", METHODS)
def test_every_row_is_kept_or_dropped_with_a_reason(method):
    subset = th.select(make_rows(), method, budget=0.25, encoder="static")
    assert len(subset) == 20
    assert len(subset.dropped) == 60
    kept = set(subset.dataset.frame["row_id"])
    assert kept | set(subset.dropped["row_id"]) == set(subset.pool.frame["row_id"])
    assert subset.dropped["reason"].null_count() == 0
    assert subset.dropped["explanation"].str.len_chars().min() > 10
    assert set(subset.dropped["covered_by"].drop_nulls()) <= kept


@pytest.mark.parametrize("method", METHODS)
def test_the_choice_does_not_depend_on_the_order_of_the_file(method):
    rows = make_rows()
    shuffled = [rows[i] for i in np.random.default_rng(3).permutation(len(rows))]
    first = th.select(rows, method, budget=15, encoder="static")
    second = th.select(shuffled, method, budget=15, encoder="static")
    assert set(first.dataset.frame["row_id"]) == set(second.dataset.frame["row_id"])


@pytest.mark.parametrize("method", METHODS)
def test_a_smaller_budget_keeps_a_prefix_of_a_larger_one(method):
    small = th.select(make_rows(), method, budget=10, encoder="static", order="rank", seed=5)
    large = th.select(make_rows(), method, budget=20, encoder="static", order="rank", seed=5)
    assert small.rows == large.rows[:10]


def test_rows_come_back_in_the_order_of_the_file_with_all_columns():
    rows = make_rows()
    subset = th.select(rows, "k-center", budget=12, encoder="static")
    assert subset.rows == [rows[i] for i in subset.kept]
    assert list(subset.kept) == sorted(subset.kept)


def test_a_budget_in_tokens_is_used_up_as_far_as_the_next_row_allows():
    subset = th.select(make_rows(), "random", budget="100tok", order="rank")
    lengths = th.select(make_rows(), "length", budget=80).scores.value
    used = lengths[subset.kept].sum()
    following = subset.scores.ranking()[len(subset)]
    assert used <= 100 < used + lengths[following]


def test_a_threshold_keeps_the_rows_above_it():
    subset = th.select(make_rows(), "random", budget="score>0.8")
    assert set(subset.kept) == set(np.flatnonzero(subset.scores.value > 0.8))
    assert set(subset.dropped["reason"]) == {"below-threshold"}


def test_a_quota_balances_the_classes_and_is_a_reason_of_its_own():
    rows = make_rows(60) + [{"text": f"odd {i}", "label": "rare", "price": 0.0} for i in range(5)]
    subset = th.select(rows, "random", budget=20, quota="label=balanced")
    assert subset.dataset.frame["response"].value_counts()["count"].to_list() == [4] * 5
    limited = th.select(rows, "random", budget=10, quota="label:*<=2")
    assert limited.dataset.frame["response"].value_counts()["count"].max() == 2
    assert "over-quota" in set(limited.dropped["reason"])


def test_existing_rows_push_the_picks_elsewhere():
    rows = [
        {"text": text, "label": "x"} for text in ("red cotton shirt", "blue cotton shirt", "garden hose", "oak lamp")
    ]
    alone = th.select(rows, "k-center", budget=2, encoder="static", existing=rows[:2])
    assert {row["text"] for row in alone.rows} == {"garden hose", "oak lamp"}


def test_a_second_run_reads_the_finished_result(tmp_path):
    pool = write(tmp_path / "pool.jsonl", make_rows())
    first = th.select(pool, "k-center", budget=9, encoder="static", order="rank", out=tmp_path / "out")
    again = th.select(pool, "k-center", budget=9, encoder="static", order="rank", out=tmp_path / "out")
    assert again.kept.tolist() == first.kept.tolist()
    assert again.manifest.content == first.manifest.content
    assert again.dropped.equals(first.dropped)


def test_two_runs_of_the_same_work_have_the_same_manifest_hash(tmp_path):
    pool = write(tmp_path / "pool.jsonl", make_rows())
    hashes = {th.select(pool, "random", budget=9, seed=seed).manifest.hash for seed in (1, 1)}
    assert len(hashes) == 1
    assert th.select(pool, "random", budget=9, seed=2).manifest.hash not in hashes


def test_the_written_rows_are_byte_for_byte_those_of_the_user(tmp_path):
    lines = [
        b'{"label":"a",  "text": "one \\u00e9", "n": 1.0e2}',
        b'{"text":"two","label":"b","n":12345678901234567890}',
    ]
    (tmp_path / "pool.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    th.select(tmp_path / "pool.jsonl", "random", budget=2, out=tmp_path / "out")
    assert (tmp_path / "out" / "subset.jsonl").read_bytes() == b"\n".join(lines) + b"\n"


def test_rejected_rows_are_listed_and_counted(tmp_path):
    pool = tmp_path / "pool.jsonl"
    write(pool, make_rows(10))
    with open(pool, "ab") as file:
        file.write(b'{"text": "no label"}\n{broken\n')
    subset = th.select(pool, "random", budget=5, out=tmp_path / "out")
    counts = subset.manifest.content["counts"]
    assert (counts["read"], counts["rejected"], counts["usable"], counts["kept"], counts["dropped"]) == (
        12,
        2,
        10,
        5,
        5,
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == [11, 12]


def test_a_subset_folder_finds_its_pool_again(tmp_path):
    pool = write(tmp_path / "pool.jsonl", make_rows())
    subset = th.select(pool, "random", budget=9, out=tmp_path / "out")
    found = open_subset(tmp_path / "out")
    assert found.kept.tolist() == subset.kept.tolist()
    assert len(found.pool) == 80


def test_a_subset_whose_pool_is_gone_or_changed_says_so(tmp_path):
    pool = write(tmp_path / "pool.jsonl", make_rows())
    th.select(pool, "random", budget=9, out=tmp_path / "out")
    write(pool, make_rows(81))
    with pytest.raises(ManifestError, match="has changed since"):
        open_subset(tmp_path / "out")
    pool.unlink()
    with pytest.raises(ManifestError, match="is not at"):
        open_subset(tmp_path / "out")
    with pytest.raises(ManifestError, match="chosen from other rows"):
        read_subset(tmp_path / "out", th.load(make_rows(3)))


def test_settings_with_a_selector_object_are_refused():
    from thresher.selectors.uniform import Uniform

    with pytest.raises(InputError, match="give them to Uniform"):
        th.select(make_rows(), Uniform(), budget=3, settings={"a": 1})


def test_a_subset_shows_itself_in_a_notebook_with_text_escaped():
    rows = [{"text": f"<script>alert({i})</script>", "label": "x"} for i in range(6)]
    subset = th.select(rows, "random", budget=3)
    html = subset._repr_html_()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 6
    assert "3 of 6 rows" in repr(subset)


def test_a_subset_becomes_a_hugging_face_dataset():
    rows = make_rows()
    subset = th.select(rows, "random", budget=3)
    assert subset.to_dataset().to_list() == [rows[i] for i in subset.kept]


def test_scores_and_reasons_are_tables_anybody_can_read(tmp_path):
    th.select(make_rows(), "facility-location", budget=8, encoder="static", out=tmp_path / "out")
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert scores.columns == ["row_id", "value", "rank", "position"]
    assert sorted(scores["position"].drop_nulls()) == list(range(8))
    assert (pl.read_parquet(tmp_path / "out" / "dropped.parquet")["reason"] == "covered").sum() > 0
