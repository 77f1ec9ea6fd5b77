import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cli.select import format_summary
from thresher.errors import InputError, ManifestError, OutputError, SettingsError
from thresher.selectors import Requirements, Selector
from thresher.subset.scores import Scores
from thresher.subset.subset import open_subset, read_subset, read_subset_rows

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


@pytest.mark.parametrize("method", ["k-center", "facility-location", "quality-diversity", "delift"])
def test_a_row_that_existing_rows_cover_says_so(method):
    """It used to say that it was ranked too late for the budget."""
    rows = make_rows(30)
    existing = [{**row, "text": row["text"] + " new"} for row in rows[:10]]
    settings = {"quality-diversity": {"quality": "price", "alpha": 0.0}, "delift": {"kernel": "embedding"}}.get(method)
    subset = th.select(rows, method, budget=4, encoder="static", existing=existing, settings=settings)
    embedding = {
        name: th.features.compute(th.load(part), {"embedding"}, th.features.make_context(encoder="static"))["embedding"]
        for name, part in (("rows", rows), ("existing", existing))
    }
    to_existing = (embedding["rows"] @ embedding["existing"].T).max(axis=1)
    to_picks = (embedding["rows"] @ embedding["rows"][subset.kept].T).max(axis=1)
    reasons = dict(subset.dropped.select("line", "reason").iter_rows())
    by_row = {line: subset.dropped.row(by_predicate=pl.col("line") == line, named=True) for line in reasons}
    for i in set(range(30)) - set(subset.kept.tolist()):
        row = by_row[i + 1]
        if to_existing[i] > to_picks[i] + 1e-3 and to_existing[i] > 0:
            assert row["reason"] == "covered-by-existing", (i, row)
            assert row["explanation"].startswith("an existing row represents it")
            if row["similarity"] is not None:
                assert row["similarity"] == pytest.approx(to_existing[i], abs=1e-3)
        elif to_picks[i] > to_existing[i] + 1e-3:
            assert row["reason"] == "covered"
    assert "covered-by-existing" in subset.manifest.content["counts"]["dropped_by_reason"]


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
    write(pool, make_rows(81))  # another row at the end: the pool is still there
    assert (
        open_subset(tmp_path / "out").pool.frame["prompt"].to_list() == th.load(make_rows()).frame["prompt"].to_list()
    )
    changed = make_rows()
    changed[7]["text"] += " changed"
    write(pool, changed)
    with pytest.raises(ManifestError, match="has changed since"):
        open_subset(tmp_path / "out")
    pool.unlink()
    with pytest.raises(ManifestError, match="is no longer at"):
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
    assert subset.to_datasets().to_list() == [rows[i] for i in subset.kept]


def test_scores_and_reasons_are_tables_anybody_can_read(tmp_path):
    th.select(make_rows(), "facility-location", budget=8, encoder="static", out=tmp_path / "out")
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert scores.columns == ["row_id", "value", "rank", "position"]
    assert sorted(scores["position"].drop_nulls()) == list(range(8))
    assert (pl.read_parquet(tmp_path / "out" / "dropped.parquet")["reason"] == "covered").sum() > 0


def test_other_texts_under_the_same_ids_are_other_work(tmp_path):
    rows = [{"id": i, "q": "why", "a": "x " * (i + 1), "b": "x " * (50 - i)} for i in range(20)]
    pool = write(tmp_path / "pool.jsonl", rows)
    by_a, by_b = (th.load(pool, columns={"prompt": "q", "response": name}, id_column="id") for name in ("a", "b"))
    assert th.select(by_a, "length", budget=1, out=tmp_path / "out").rows[0]["id"] == 19
    assert th.select(by_b, "length", budget=1, out=tmp_path / "out", force=True).rows[0]["id"] == 0


def test_another_column_in_a_frame_is_other_work(tmp_path):
    frame = pl.DataFrame({"text": [f"row {i}" for i in range(20)], "source": ["x"] * 10 + ["y"] * 10})
    other = frame.with_columns(pl.col("source").reverse())
    for rows in (frame, other):
        subset = th.select(rows, "random", budget=4, quota="source:x=1,y=0", out=tmp_path / "out", force=True)
        assert {row["source"] for row in subset.rows} == {"x"}


@pytest.mark.parametrize("budget", [7, "40tok"])
def test_ranks_say_which_rows_were_kept_among_ties_too(budget):
    rows = [{"text": f"word{i % 3} same"} for i in range(40)]
    subset = th.select(rows, "length", budget=budget)
    ranks = subset.score_table()["rank"].gather(subset.kept).sort().to_list()
    assert ranks == list(range(1, len(subset) + 1))


def test_a_row_that_only_a_quota_dropped_says_so():
    rows = [{"text": f"row {i}", "label": "rare" if i < 5 else "common"} for i in range(60)]
    subset = th.select(rows, "random", budget=8, quota="label=balanced")
    last = subset.score_table()["rank"].gather(subset.kept).max()
    by_quota = subset.dropped.filter(pl.col("reason") == "over-quota")
    assert by_quota["rank"].max() < last < subset.dropped.filter(pl.col("reason") == "over-budget")["rank"].min()
    assert by_quota["explanation"][0] == f"ranked {by_quota['rank'][0]}, and its group's quota is full"


def test_below_a_limit_that_leaves_room_in_the_budget_every_dropped_row_is_over_its_quota():
    subset = th.select(make_rows(), "random", budget=20, quota="label:*<=3")
    assert len(subset) == 12
    assert subset.dropped["reason"].unique().to_list() == ["over-quota"]


def test_a_threshold_comes_before_a_quota_as_the_reason():
    subset = th.select(make_rows(), "random", budget="score>0.5", quota="label:*<=3")
    is_above = pl.col("value") > 0.5
    assert set(subset.dropped.filter(is_above)["reason"]) == {"over-quota"}
    assert set(subset.dropped.filter(~is_above)["reason"]) == {"below-threshold"}


def test_a_quota_that_allows_no_row_is_refused():
    with pytest.raises(InputError, match=r"label:\*<=0 allows no row of the 80 in the pool"):
        th.select(make_rows(), "random", budget=5, quota="label:*<=0")


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(SettingsError, match="seed must be a whole number of at least 0"):
        th.select(make_rows(), "random", budget=5, seed=seed)


def test_a_class_or_another_object_in_place_of_a_selector_is_refused():
    from thresher.selectors.uniform import Uniform

    for method in (Uniform, object()):
        with pytest.raises(InputError, match="method: must be the name of a selector"):
            th.select(make_rows(), method, budget=5)


def test_a_subset_of_a_relative_path_finds_its_pool_from_another_folder(tmp_path, monkeypatch):
    write(tmp_path / "pool.jsonl", make_rows())
    monkeypatch.chdir(tmp_path)
    th.select("pool.jsonl", "random", budget=9, out="out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(open_subset(tmp_path / "out")) == 9


def test_a_result_is_not_replaced_by_rows_chosen_from_it(tmp_path):
    th.select(make_rows(), "random", budget=9, out=tmp_path / "out")
    with pytest.raises(OutputError, match=r"must not replace its own input, it holds subset\.jsonl"):
        th.select(tmp_path / "out" / "subset.jsonl", "random", budget=3, out=tmp_path / "out", force=True)
    assert len((tmp_path / "out" / "subset.jsonl").read_text().splitlines()) == 9


def test_a_result_that_is_there_already_is_told(tmp_path):
    told = []
    for _ in range(2):
        th.select(make_rows(), "random", budget=9, out=tmp_path / "out", on_progress=told.append)
    assert [progress.note for progress in told] == [
        f"{tmp_path / 'out'}: holds the result of this very command already, which is read back"
    ]


def test_counts_add_up_for_a_part_of_a_dataset():
    pool = th.load([*make_rows(), {"text": "", "label": "a"}])
    counts = th.select(pool.take(range(30)), "random", budget=10).manifest.content["counts"]
    assert counts["kept"] + counts["dropped"] + counts["rejected"] == counts["read"] == 30


def test_a_quota_that_does_not_fit_is_refused_before_any_model_runs():
    for quota, message in (("label:rare=1,*=1", "'rare' is not a value"), ("label:class 0=1", "'class 1' has none")):
        with pytest.raises(InputError, match=message):
            th.select(make_rows(), "k-center", budget=5, quota=quota, encoder="no/such-encoder")


def test_the_manifest_says_where_the_rows_beside_the_pool_were_read(tmp_path):
    """Only their hash stood in it, so that nobody could repeat the command."""
    pool, mine = write(tmp_path / "pool.jsonl", make_rows()), write(tmp_path / "mine.jsonl", make_rows(seed=1)[:9])
    subset = th.select(str(pool), "k-center", budget=5, encoder="static", existing=str(mine))
    assert subset.manifest.content["run"]["inputs"] == [str(pool)]
    assert subset.manifest.content["run"]["existing"] == [str(mine)]


def test_a_kept_row_that_is_longer_than_the_usual_limit_is_read_again(tmp_path):
    """It was rejected when the folder was trained on."""
    rows = [{"text": "a" * (5 << 20)}, {"text": "b"}]
    pool = th.load(str(write(tmp_path / "pool.jsonl", rows)), max_row_bytes=6 << 20)
    th.select(pool, "random", budget=2, out=tmp_path / "out")
    assert len(read_subset_rows(tmp_path / "out")) == 2


@dataclass(frozen=True, kw_only=True)
class Picky(Selector):
    """Gives all rows but the first few no place."""

    name: ClassVar[str] = "picky"
    requirements: ClassVar[Requirements] = Requirements()

    n_left: int = 1

    def score(self, features, *, n_ranked, rng):
        value = np.where(np.arange(features.n_rows) < self.n_left, 0.0, -np.inf)
        why = pl.Series([None if number == 0 else "it is bad" for number in value], dtype=pl.String)
        return Scores(row_id=features.row_id, value=value, by=self.name, excluded=why)


def test_fewer_rows_than_were_asked_for_are_told_last_and_refused_when_strict(tmp_path):
    path = write(tmp_path / "pool.jsonl", make_rows(16))
    subset = th.select(str(path), Picky(), budget=16, out=tmp_path / "out")
    expected = "1 of the 16 requested rows were kept: picky gives 15 of the 16 rows no rank (it is bad)"
    assert subset.manifest.content["shortfall"] == expected
    assert format_summary(subset, tmp_path / "out", None).splitlines()[-1].startswith(f"WARNING: {expected}")
    for out in ("out", "other"):  # one that is read back, and a new one
        with pytest.raises(InputError, match="1 of the 16 requested rows were kept.*leave out --strict"):
            th.select(str(path), Picky(), budget=16, out=tmp_path / out, strict=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("n_left", "options", "is_short"),
    [
        (16, {"budget": 16}, False),
        (8, {"budget": "50%"}, False),
        (8, {"budget": 9}, True),
        (3, {"budget": "80tok"}, True),
        (15, {"budget": "20tok"}, False),
        (2, {"budget": "score>-1"}, False),
        (16, {"budget": 12, "quota": "label:*<=2"}, False),
    ],
)
def test_a_shortfall_is_what_was_asked_for_and_not_found(tmp_path, n_left, options, is_short):
    rows = [{"text": f"some words of text {i}", "label": "ab"[i % 2]} for i in range(16)]
    subset = th.select(rows, Picky(n_left=n_left), **options)
    assert ("shortfall" in subset.manifest.content) == is_short
    assert "WARNING" not in format_summary(subset, None, None) or is_short
