"""The shipped data set is what its generator makes, and its planted truth is true."""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_products", DATA / "make_products.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_products"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_products"]


@pytest.fixture(scope="module")
def train():
    return pl.read_ndjson(DATA / "products" / "train.jsonl")


@pytest.fixture(scope="module")
def test_rows():
    return pl.read_ndjson(DATA / "products" / "test.jsonl")


@pytest.fixture(scope="module")
def pairs(train, test_rows):
    """Each row that was made from another, beside that other (columns with `_of_original`)."""
    originals = pl.concat([train, test_rows]).rename(lambda name: f"{name}_of_original")
    made = train.filter(pl.col("planted_of") != "")
    joined = made.join(originals, left_on="planted_of", right_on="listing_id_of_original")
    assert len(joined) == len(made)
    return joined


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
def test_the_generator_makes_the_shipped_bytes(generator, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("made")
    generator.write(folder)
    assert (folder / name).read_bytes() == (DATA / "products" / name).read_bytes()


def test_counts_are_those_of_the_card(generator, train, test_rows):
    assert (len(train), len(test_rows)) == (5_000, 1_000)
    counts = Counter(train["planted"].to_list())
    assert counts.pop("") == 3_900
    assert counts == generator.PLANTED
    card = (DATA / "products" / "README.md").read_text()
    for kind, number in generator.PLANTED.items():
        assert any(f"`{kind}` | {number}" in line for line in card.splitlines()), kind


def test_the_test_part_has_no_faults(test_rows):
    assert test_rows["planted"].unique().to_list() == [""]
    assert (test_rows["label"] == test_rows["true_label"]).all()
    assert test_rows["text"].is_unique().all()


def test_a_label_is_wrong_exactly_where_it_was_planted(train):
    is_wrong = train["label"] != train["true_label"]
    assert is_wrong.to_list() == train["planted"].is_in(["wrong-label", "conflict"]).to_list()


def test_every_original_is_a_clean_row_of_the_right_part(pairs):
    assert pairs["planted_of_original"].unique().to_list() == [""]
    assert pairs.filter(pl.col("planted") == "leak")["planted_of"].str.starts_with("te").all()
    assert pairs.filter(pl.col("planted") != "leak")["planted_of"].str.starts_with("tr").all()


def test_copies_are_what_they_say(pairs):
    def select_kind(kind):
        return pairs.filter(pl.col("planted") == kind)

    for kind in ("exact-duplicate", "leak"):
        assert (select_kind(kind)["text"] == select_kind(kind)["text_of_original"]).all()
        assert (select_kind(kind)["label"] == select_kind(kind)["label_of_original"]).all()
    assert (select_kind("conflict")["text"] == select_kind("conflict")["text_of_original"]).all()
    assert (select_kind("conflict")["label"] != select_kind("conflict")["label_of_original"]).all()
    for kind in ("near-duplicate", "semantic-duplicate"):
        assert (select_kind(kind)["text"] != select_kind(kind)["text_of_original"]).all()
        assert (select_kind(kind)["attributes"] == select_kind(kind)["attributes_of_original"]).all()
    assert (
        select_kind("semantic-duplicate")["source"] != select_kind("semantic-duplicate")["source_of_original"]
    ).all()
    shared = [
        len(set(a.split()) & set(b.split())) / len(set(a.split()) | set(b.split()))
        for a, b in select_kind("near-duplicate").select("text", "text_of_original").iter_rows()
    ]
    assert min(shared) > 0.5


def test_no_text_repeats_by_accident(train, test_rows):
    clean = train.filter(~pl.col("planted").is_in(["exact-duplicate", "leak", "conflict"]))
    assert pl.concat([clean, test_rows])["text"].is_unique().all()


def test_listing_ids_are_unique_and_tell_nothing_of_faults(train):
    assert train["listing_id"].is_unique().all()
    numbers = train.select(pl.col("listing_id").str.slice(2).cast(pl.Int64), pl.col("planted") != "")
    faulty_share = numbers.filter(pl.col("listing_id") <= 1_000)["planted"].mean()
    assert faulty_share == pytest.approx(0.22, abs=0.05)  # as in all rows; standard error 0.012


def test_categories_are_skewed_and_all_there(train, test_rows):
    counts = sorted(Counter(train["true_label"].to_list()).values(), reverse=True)
    assert len(counts) == 24
    assert counts[0] > 10 * counts[-1]
    assert counts[-1] >= 40
    assert test_rows["label"].n_unique() == 24


def test_attributes_can_be_found_in_the_text(train):
    for text, attributes in train.select("text", "attributes").iter_rows():
        values = json.loads(attributes)
        assert list(values) == sorted(values)
        assert "brand" in values
        assert all(value.lower() in text.lower() for value in values.values()), text
