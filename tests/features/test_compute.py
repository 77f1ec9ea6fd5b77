from importlib.metadata import entry_points
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, NotFoundError, SettingsError
from thresher.features import FeatureCache, FeatureContext, column_values, compute, fingerprints, make_context
from thresher.features import compute as compute_function
from thresher.features.container import FORMER_NAMES
from thresher.features.registry import FeatureProvider, load_provider
from thresher.models.encoders.static import StaticEncoder
from thresher.selectors import create

STATIC = make_context(encoder="static")


def test_every_array_follows_the_rows_when_they_change_order(make_rows, make_sentences):
    texts = make_sentences(60)
    labels = [text.split()[1] for text in texts]
    order = np.random.default_rng(0).permutation(60)
    needs = ["embedding", "length", "column:label", "column:source"]
    here = compute(make_rows(texts, kind="classification", labels=labels), needs, STATIC)
    there = compute(
        make_rows([texts[i] for i in order], kind="classification", labels=[labels[i] for i in order]), needs, STATIC
    )
    assert set(here) == set(needs)
    for name in needs:
        np.testing.assert_array_equal(there[name], here[name][order])


def test_values_from_the_cache_equal_fresh_ones(make_rows, make_sentences):
    rows = make_rows(make_sentences(40))
    fresh = compute(rows, ["embedding", "length"], make_context(encoder="static", cache=None))
    for _ in range(2):
        cached = compute(rows, ["embedding", "length"], STATIC)
        np.testing.assert_array_equal(cached["embedding"], fresh["embedding"])
        np.testing.assert_array_equal(cached["length"], fresh["length"])


def test_texts_that_an_english_encoder_tells_little_of_are_counted_whatever_the_cache_knows(make_rows, tmp_path):
    foreign = ["今天天气很好", "Привет, мир", "☃☃ a", "كتاب جديد 2", "ฉันชอบ"]
    rows = make_rows([*foreign, "", "...", "naïve café – “déjà vu”", "def f(x): return x ** 2  # 平方", "a mug ☃"])
    told = []
    cache = FeatureCache(tmp_path)
    context = make_context(encoder="static", cache=cache, on_progress=lambda event: told.append(event.note))
    for _ in range(2):
        told.clear()
        assert compute(rows, ["embedding"], context).notes == {"embedding": {"rows_in_other_letters": 5}}
        [note] = [note for note in told if note]
        assert note.startswith("encoder 'static-minilm-256' reads English, and 5 of 10 texts are mostly in non-Latin")
    assert compute(make_rows(["a mug"]), ["embedding"], context).notes == {}


def test_half_precision_is_rounded_once_and_kept_apart(make_rows, make_sentences, tmp_path):
    rows = make_rows(make_sentences(40))
    half = make_context(encoder="static", embedding_dtype="float16", cache=FeatureCache(tmp_path / "half"))
    whole = make_context(encoder="static", cache=FeatureCache(tmp_path / "whole"))
    expected = compute(rows, ["embedding"], whole)["embedding"].astype(np.float16)
    for _ in range(2):
        found = compute(rows, ["embedding"], half)["embedding"]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, expected)
    kept = [sum(path.stat().st_size for path in (tmp_path / name).rglob("*.safetensors")) for name in ("half", "whole")]
    assert 0 < kept[0] < 0.6 * kept[1]
    marks = [fingerprints(["embedding"], context)["embedding"]["fingerprint"] for context in (half, whole)]
    assert marks[0] == f"{marks[1]}-float16"
    with pytest.raises(SettingsError, match="embedding_dtype must be one of 'float32', 'float16', got 'int8'"):
        make_context(embedding_dtype="int8")


def test_a_second_run_loads_no_model(make_rows, make_sentences, monkeypatch):
    rows = make_rows(make_sentences(10))
    compute(rows, ["embedding"], STATIC)
    monkeypatch.setattr(StaticEncoder, "_model", property(lambda _self: pytest.fail("the model was loaded")))
    compute(rows, ["embedding"], STATIC)


def test_no_rows_have_features_of_the_right_shape(make_rows):
    features = compute(make_rows([]), ["embedding", "length", "column:source"], STATIC)
    assert features["embedding"].shape == (0, 256)
    assert features["length"].shape == features["column:source"].shape == (0,)


def test_codes_are_ranks_of_the_sorted_distinct_values(make_rows):
    rows = make_rows(["a", "b", "c", "d"], columns={"shop": pl.Series(["z", "B", None, "z"])})
    assert column_values(rows, "shop").to_list() == ["z", "B", "", "z"]
    codes = compute(rows, ["column:shop"])["column:shop"]
    assert codes.dtype == np.int64
    assert codes.tolist() == [2, 1, 0, 2]
    assert column_values(rows, "shop").unique().sort().to_list() == ["", "B", "z"]


def test_numbers_are_grouped_by_their_text(make_rows):
    rows = make_rows(["a", "b", "c"], columns={"stars": pl.Series([5, 1, 5])})
    assert compute(rows, ["column:stars"])["column:stars"].tolist() == [1, 0, 1]


def test_label_is_the_response_of_classification_data_and_else_a_column(make_rows):
    columns = {"label": pl.Series(["mine", "yours"])}
    classified = make_rows(["a", "b"], kind="classification", labels=["cat", "dog"], columns=columns)
    assert column_values(classified, "label").to_list() == ["cat", "dog"]
    assert column_values(make_rows(["a", "b"], columns=columns), "label").to_list() == ["mine", "yours"]
    with pytest.raises(NotFoundError, match="column 'label' not found"):
        column_values(make_rows(["a", "b"]), "label")


def test_source_is_the_users_column_and_else_the_file(make_rows):
    files = ["x.jsonl", "y.jsonl"]
    assert column_values(make_rows(["a", "b"], files=files), "source").to_list() == files
    columns = {"source": pl.Series(["s", "t"])}
    assert column_values(make_rows(["a", "b"], files=files, columns=columns), "source").to_list() == ["s", "t"]


def test_a_column_of_lists_is_refused(make_rows):
    rows = make_rows(["a"], columns={"tags": pl.Series([["x", "y"]])})
    with pytest.raises(InputError, match=r"column 'tags' must hold one plain value per row, got List"):
        compute(rows, ["column:tags"])


def test_an_unknown_feature_is_refused_with_the_nearest_name(make_rows):
    with pytest.raises(NotFoundError, match=r"feature 'embeding' not found; available: .*; did you mean 'embedding'\?"):
        compute(make_rows(["a"]), ["embeding"])


def test_a_wrong_column_is_refused_before_anything_is_embedded(make_rows, monkeypatch):
    monkeypatch.setattr(StaticEncoder, "encode_batches", lambda *_: pytest.fail("embedded"))
    with pytest.raises(NotFoundError, match="column 'nope' not found"):
        compute(make_rows(["a"]), ["embedding", "column:nope"], STATIC)


def test_a_feature_of_a_plug_in_is_found_by_its_entry_point(make_rows, monkeypatch):
    class Vowels(FeatureProvider):
        name = "vowels"

        def describe(self, context):
            return {"rule": "aeiou"}

        def compute(self, dataset, context):
            return np.array([sum(letter in "aeiou" for letter in text) for text in dataset.texts()])

    class Point:
        name = "vowels"

        def load(self):
            return Vowels

    def select(group):
        return [Point()] if group == "thresher.features" else entry_points(group=group)

    monkeypatch.setattr("thresher.plugins.entry_points", lambda: SimpleNamespace(select=select))
    assert compute(make_rows(["aha", "mm"]), ["vowels"])["vowels"].tolist() == [2, 0]
    assert fingerprints(["vowels", "column:x"], STATIC) == {"vowels": {"rule": "aeiou"}}


def test_fingerprints_name_the_models(make_rows):
    found = fingerprints(["embedding", "length"], FeatureContext().resolved())
    assert found["embedding"] == {
        "encoder": "static-minilm-256",
        "storage_dtype": "float32",
        "fingerprint": StaticEncoder().fingerprint,
    }
    assert found["length"]["tokenizer"] == "static-minilm-256"


def test_progress_ends_with_all_rows_done(make_rows, make_sentences):
    events = []
    context = make_context(encoder="static", on_progress=events.append)
    compute(make_rows(make_sentences(30)), ["embedding", "length"], context)
    last = {event.stage: (event.done, event.total) for event in events}
    assert last == {"embedding": (30, 30), "length": (30, 30)}


def test_illegal_settings_are_refused():
    with pytest.raises(SettingsError, match="batch_tokens must be a whole number of at least 1, got 0"):
        make_context(batch_tokens=0)
    with pytest.raises(SettingsError, match="dtype must be one of 'float32', 'bfloat16', 'float16', got 'int3'"):
        make_context(dtype="int3")


def test_compute_is_the_function_of_the_package():
    assert callable(compute_function)


def test_the_former_names_of_features_are_accepted_everywhere(tiny_llama):
    for former, name in FORMER_NAMES.items():
        assert type(load_provider(former)) is type(load_provider(name))
    here = make_context(model=str(tiny_llama), device="cpu", cache=None)
    rows = th.load([{"prompt": "add 1 and 2:", "completion": "3"}])
    found = compute(rows, {"n_scored"}, here)
    assert list(found) == ["n_response_tokens"]
    assert found["n_scored"] is found["n_response_tokens"]
    assert th.score(rows, "n_scored,n_cut", model=str(tiny_llama), device="cpu").frame.columns == [
        "row_id",
        "n_response_tokens",
        "n_truncated_tokens",
    ]
    assert create("delift", {"kernel": "utility"}).requirements.features == {"in_context_utility"}
    assert create("target-similarity", {"kernel": "hidden"}) == create("rds+")


@pytest.mark.parametrize(("encoder", "n_lines"), [(None, 1), ("auto", 1), ("static", 0)])
def test_the_default_encoder_says_what_the_better_one_costs(make_rows, monkeypatch, encoder, n_lines):
    monkeypatch.setattr("thresher.features.embedding.missing_for_minilm", lambda: None)
    heard = []
    context = make_context(encoder=encoder, device="cpu", cache=None, on_progress=heard.append)
    compute(make_rows(["a red mug", "a blue lamp"]), {"embedding"}, context.resolved())
    lines = [progress.note for progress in heard if "--encoder minilm" in (progress.note or "")]
    assert len(lines) == n_lines
    assert all("s per 1,000 rows" in line for line in lines)
