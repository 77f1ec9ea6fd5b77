"""Labels that are certainly the same are one class; those that look alike are reported."""

import json
import math

import polars as pl
import pytest

from thresher.dataset import load
from thresher.dataset.loading import load_unlabeled
from thresher.dataset.settings import ReadSettings
from thresher.dataset.values.labels import find_similar_labels


def write(path, labels):
    rows = [(f"text {i}", label) for i, label in enumerate(labels)]
    if path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f'{text},"{label}"\n' for text, label in rows))
    else:
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_white_space_at_the_ends_and_the_form_of_letters_make_no_class(tmp_path, name):
    rows = load(write(tmp_path / name, ["pos", "pos ", "\u00a0pos", "caf\u00e9", "cafe\u0301", "two  words"]))
    assert rows.frame["response"].to_list() == ["pos", "pos", "pos", "caf\u00e9", "caf\u00e9", "two  words"]
    assert rows.notes == ()
    assert load(rows.rows(range(6))).frame["row_id"].equals(rows.frame["row_id"])


def test_numbers_are_joined_where_nearly_all_labels_are_numbers(tmp_path):
    labels = [1, 1.0, "1", "1.0", "-2.0"] * 4 + ["n/a", "01"]
    expected = ["1", "1", "1", "1", "-2"] * 4 + ["n/a", "01"]
    assert load(write(tmp_path / "a.jsonl", labels)).frame["response"].to_list() == expected
    assert load(write(tmp_path / "a.csv", labels)).frame["response"].to_list() == expected


def test_a_decimal_after_many_whole_numbers_is_one_of_them_and_a_fraction_is_rejected(tmp_path):
    rows = load(write(tmp_path / "a.csv", ["0", "1"] * 300 + ["1.0", "2.5"]))
    assert rows.frame["response"].to_list() == ["0", "1"] * 300 + ["1"]
    assert rows.rejected["reason"].to_list() == ["field 'label' must be text or a whole number, found a fraction"]


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("['a', 'b']", "a list"),
        ("[1 0 0]", "a list"),
        ("('a', 'b')", "a list"),
        ("{'a': 1}", "an object"),
        ("{'a'}", "a list"),
    ],
)
def test_a_list_written_as_text_is_rejected_as_a_list(tmp_path, label, kind):
    rows = load(write(tmp_path / "a.csv", ["a", label, "[other]", "(none)", "{x}"]))
    assert rows.frame["response"].to_list() == ["a", "[other]", "(none)", "{x}"]
    several = "field 'label' must hold one label, found a list; make a column of yes and no per label"
    other = f"field 'label' must be text or a whole number, found {kind}"
    assert rows.rejected["reason"].to_list() == [several if kind == "a list" else other]
    as_list = load(write(tmp_path / "a.jsonl", ["a", ["a", "b"]]))
    assert as_list.rejected["reason"].to_list() == [several]


@pytest.mark.parametrize("label", [[], {}, "[]", "{ }", "()", math.nan, None, " "])
def test_what_stands_for_no_label_is_told_as_that_and_may_be_labeled(tmp_path, label):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"t {i}", "label": label if i else "x"}) + "\n" for i in range(3)))
    rows = load(path)
    assert (len(rows), len(rows.rejected)) == (1, 2)
    assert not rows.rejected["reason"].str.contains("must").any()
    for source in (path, [json.loads(line) for line in path.read_text().splitlines()]):
        texts, labeled = load_unlabeled(source, ReadSettings())
        assert (len(texts), len(labeled)) == (3, 1)


def test_nan_in_a_column_of_numbers_is_no_label(tmp_path):
    frame = pl.DataFrame({"text": ["a", "b", "c"], "label": [1.0, math.nan, 2.0]})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    for source in (frame, tmp_path / "a.csv", tmp_path / "a.parquet"):
        texts, labeled = load_unlabeled(source, ReadSettings())
        assert len(texts) == 3
        assert labeled.frame["response"].to_list() == ["1", "2"]
    names = load([{"text": "a", "label": "NaN"}, {"text": "b", "label": "bread"}])
    assert names.frame["response"].to_list() == ["NaN", "bread"]


@pytest.mark.parametrize(
    ("labels", "n_rows"),
    [
        (["a", "a,b", "b", "c, a", "c"], 2),
        (["a;b", "b;c", "a|c", "d"], 3),
        (["New York, NY", "Buffalo, NY", "Boston, MA"], 0),
        (["a", "b", "a,b"], 0),  # one alone may be a name
        (["toys, games", "books"], 0),
        (["a,,b", "a,", "a", "b"], 0),
    ],
)
def test_labels_that_are_several_in_one_text_are_reported(tmp_path, labels, n_rows):
    notes = load(write(tmp_path / "a.jsonl", labels)).notes
    found = [note for note in notes if "seem to have several labels" in note]
    assert [note.split()[0] for note in found] == ([str(n_rows)] if n_rows else [])


def test_labels_that_look_alike_are_reported_and_not_joined(tmp_path):
    rows = load(write(tmp_path / "a.jsonl", ["neg", "Neg", "neg", "not_spam", "not spam", "ham"]))
    assert rows.frame["response"].to_list() == ["neg", "Neg", "neg", "not_spam", "not spam", "ham"]
    [note] = rows.notes
    assert note == (
        "labels that look alike are read as different classes: 'neg' (2) and 'Neg' (1); 'not spam' (1) and "
        "'not_spam' (1); write each class one way"
    )
    assert find_similar_labels({"1": 3, "1.0": 2, "\uff11": 1}) == [["1", "1.0", "\uff11"]]
    assert find_similar_labels({"c": 1, "c++": 1, "c#": 1}) == []
