"""What people do with rows and subsets in a notebook."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.notebook.progress_board import LISTENERS, ProgressBoard, show_progress
from thresher.progress import Progress


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "pool.jsonl"
    rows = [{"text": f"row {i} <b>", "label": f"class {i % 3}", "weight": i * 0.5} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return th.load(path)


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)


def test_a_dataset_is_used_like_a_table(pool):
    assert (len(pool), pool.columns) == (40, ["text", "label", "weight"])
    assert pool[3] == pool[-37] == {"text": "row 3 <b>", "label": "class 0", "weight": 1.5}
    assert [row["weight"] for row in pool] == pool["weight"].to_list() == [i * 0.5 for i in range(40)]
    assert pool[30:33]["text"].to_list() == ["row 30 <b>", "row 31 <b>", "row 32 <b>"]
    assert len(pool[pool["label"] == "class 1"]) == 13
    assert pool.head(2).rows() == [("row 0 <b>", "class 0", 0.0), ("row 1 <b>", "class 1", 0.5)]
    assert pool.to_polars().equals(pl.DataFrame(list(pool)))
    assert pool.to_pandas().to_dict("records") == list(pool)
    assert pool.to_datasets()[5] == pool[5]


def test_a_page_of_rows_is_escaped_and_short(pool):
    html = pool._repr_html_()
    assert "row 4 &lt;b&gt;" in html
    assert "row 5" not in html
    assert "<b>" not in html


@pytest.mark.parametrize("key", [40, -41])
def test_a_row_that_is_not_there_is_an_index_error(pool, key):
    with pytest.raises(IndexError, match="there are 40 rows"):
        pool[key]


def test_a_column_that_is_not_there_is_named(pool):
    with pytest.raises(th.ThresherError, match="did you mean 'weight'"):
        pool["weigth"]


def test_a_subset_is_resized_as_if_it_had_been_chosen_so(pool, vectors, tmp_path):
    subset = th.select(pool, "k-center", budget=20, embeddings=vectors)
    direct = th.select(pool, "k-center", budget=7, embeddings=vectors)
    opened = th.open(subset.save(tmp_path / "subset"))
    for smaller in (subset.resize(7), opened.resize("7"), subset.resize(12).resize(7)):
        assert smaller.kept.tolist() == direct.kept.tolist()
        assert smaller.manifest.content["counts"]["kept"] == len(smaller) == 7
        assert len(smaller.dropped) == 33
    ids = pool.frame["row_id"]
    covered = subset.resize(7).dropped.filter(pl.col("reason") == "covered")
    assert set(covered["covered_by"]) <= set(ids[direct.kept])
    assert opened.resize(7).dropped.equals(subset.resize(7).dropped)
    assert subset.resize(7).save(tmp_path / "small").name == "small"
    assert subset.manifest.content["counts"]["kept"] == 20


@pytest.mark.parametrize(("budget", "sentence"), [(30, "at most the 20 rows"), ("2ktok", "call select for tokens")])
def test_a_budget_that_was_not_ranked_is_refused(pool, vectors, budget, sentence):
    with pytest.raises(th.ThresherError, match=sentence):
        th.select(pool, "k-center", budget=20, embeddings=vectors).resize(budget)


def test_each_row_is_explained(pool, vectors):
    subset = th.select(pool, "k-center", budget=20, embeddings=vectors)
    reasons = dict(subset.dropped.select("row_id", "explanation").iter_rows())
    for position, row_id in enumerate(pool.frame["row_id"]):
        sentence = subset.explain(position)
        assert sentence == subset.explain(row_id)
        assert sentence.endswith(reasons[row_id]) if row_id in reasons else "is kept: rank" in sentence
    with pytest.raises(th.ThresherError, match="no row of the pool has this id"):
        subset.explain("nobody")


def test_the_plot_shows_each_label_of_pool_and_subset(pool, vectors):
    subset = th.select(pool, "k-center", budget=20, embeddings=vectors)
    groups = subset.plot().axes[0]
    widths = [bar.get_width() for container in groups.containers for bar in container]
    assert sum(widths[:3]) == 40
    assert sum(widths[3:]) == 20


def test_any_folder_is_opened(pool, vectors, tmp_path):
    th.curate(pool, rules=["exact-duplicates"], out=tmp_path / "clean")
    th.score(pool, ["length"], out=tmp_path / "length.parquet")
    assert len(th.open(tmp_path / "length.parquet")) == 40
    (tmp_path / "empty").mkdir()
    for wrong, found in (("empty", "manifest.json"), ("nowhere", "nothing")):
        with pytest.raises(th.ThresherError, match=found):
            th.open(tmp_path / wrong)


@pytest.fixture(scope="module")
def results(pool, vectors, tmp_path_factory):
    """Return one result of each arrow that needs no model, written to a folder."""
    out = tmp_path_factory.mktemp("results")
    return [
        th.curate(pool, rules=["exact-duplicates"], out=out / "clean"),
        th.select(pool, "k-center", budget=20, embeddings=vectors, out=out / "subset"),
        th.score(pool, ["length"], out=out / "length.parquet"),
    ]


def test_every_result_has_one_shape_and_is_read_back_as_it_was(results):
    for result in results:
        again = th.open(result.path)
        assert type(again) is type(result)
        assert again.manifest.content["identity"] == result.manifest.content["identity"]
        assert again.summary() == result.summary() == repr(result)
        assert result.summary().startswith(type(result).__name__)
        assert str(result.path) in result.summary()
        assert again._repr_html_() == result._repr_html_()
        assert len(again) == len(result)


def test_kept_rows_are_rows_wherever_rows_are_taken(results, tmp_path):
    clean, subset, table = results
    for kept in (clean, subset, th.open(clean.path)):
        assert th.load(kept).fingerprint == kept.dataset.fingerprint
        assert len(kept.to_polars()) == len(kept.to_datasets()) == len(kept) == len(list(kept)) == len(kept.rows)
        assert kept.head(2).equals(kept.to_polars().head(2))
        assert len(th.select(kept, "random", budget=3)) == 3
    assert th.open(th.open(clean.path).save(tmp_path / "copy")).summary().startswith("Curated")
    assert not th.open(clean.path).dropped.height
    with pytest.raises(th.ThresherError, match="already read"):
        th.load(clean, strict=True)
    assert "<html" in clean.report().read_text()


def test_a_subset_of_some_rows_of_a_file_is_opened(pool, tmp_path):
    for some in (pool[pool["label"] == "class 1"], pool[30:][::-1]):
        subset = th.select(some, "random", budget=5, out=tmp_path / f"of {len(some)}")
        again = th.open(subset.path)
        assert again.rows == subset.rows
        assert again.pool.frame["row_id"].to_list() == some.frame["row_id"].to_list()


def test_a_table_that_is_damaged_is_not_opened(results, tmp_path):
    table = results[2]
    path = table.save(tmp_path / "length.csv")
    path.write_text(path.read_text().replace("1", "2"))
    with pytest.raises(th.ThresherError, match="write the table again"):
        th.open(path)
    (tmp_path / "length.parquet").write_bytes(table.path.read_bytes())
    with pytest.raises(th.ThresherError, match=r"length.parquet.manifest.json beside it"):
        th.open(tmp_path / "length.parquet")


def test_a_report_of_an_object_is_written(pool, vectors):
    page = th.report(th.select(pool, "k-center", budget=20, embeddings=vectors))
    assert "<html" in page.read_text()
    with pytest.raises(th.ThresherError, match="got int"):
        th.report(3)


def test_outside_a_notebook_functions_are_left_as_they_are():
    from thresher.experiments.advice.choose import select

    assert th.select is select
    assert all(show_progress(name, function) is function for name, function in ((n, getattr(th, n)) for n in LISTENERS))


def test_the_board_of_a_notebook_shows_stages_and_notes(monkeypatch):
    drawn: list[str] = []
    monkeypatch.setattr("thresher.notebook.progress_board.is_notebook", lambda: True)
    monkeypatch.setattr("thresher.notebook.progress_board._make_display", lambda: drawn.append)

    def work(n, on_progress=None):
        for done in range(n + 1):
            on_progress(Progress(stage="<embedding>", done=done, total=n, note="one <note>"))
        return n

    assert show_progress("select", work)(7) == 7
    assert "&lt;embedding&gt;" in drawn[-1]
    assert "7 of 7" in drawn[-1]
    assert drawn[-1].count("one &lt;note&gt;") == 1
    own = []
    show_progress("select", work)(2, on_progress=own.append)
    assert len(own) == 3
    board = ProgressBoard(drawn.append)
    board.draw()
    assert drawn[-1] == ""


def test_kept_rows_of_one_score_have_ranks_of_their_own():
    rows = [{"text": f"row {i}", "worth": 1} for i in range(6)]
    subset = th.select(rows, "top", budget=3, settings={"by": "worth"})
    assert sorted(subset.explain(int(at)).partition("rank ")[2] for at in subset.kept) == [
        f"{rank} of 6 by top" for rank in (1, 2, 3)
    ]


def test_a_resized_subset_names_its_own_rows_and_still_says_what_was_excluded(tmp_path):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "score": None if i % 3 == 0 else i} for i in range(12)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = th.select(tmp_path / "pool.jsonl", "top", budget=4, out=tmp_path / "top")
    direct = th.select(tmp_path / "pool.jsonl", "top", budget=3)
    for resized in (whole.resize(3), th.open(tmp_path / "top").resize(3)):
        assert resized.manifest.content["kept_rows"] == direct.manifest.content["kept_rows"]
        assert resized.dropped.equals(direct.dropped)
        assert resized.manifest.content["counts"] == direct.manifest.content["counts"]
