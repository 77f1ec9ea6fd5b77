import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from thresher.models.encoders import wordpiece
from thresher.models.encoders.static import FOLDER
from thresher.models.encoders.wordpiece import WordPieces

PATH = FOLDER / "tokenizer.json"
LIBRARY = Tokenizer.from_file(str(PATH))
PIECES = WordPieces(PATH)

FRAGMENTS = st.one_of(
    st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=12),
    st.text(max_size=6),
    st.sampled_from(
        ["[UNK]", "[PAD]", "[PAD", "Mug", "unbelievably", "é", "e\u0301", "Σ", "İ", "\u00a0", "中文", "\ufffd", "한"]
    ),
    st.integers(98, 103).map(lambda n: "x" * n),
)
TEXTS = st.lists(st.lists(FRAGMENTS, max_size=8).map("".join), min_size=1, max_size=6)


def library(texts):
    return [encoding.ids for encoding in LIBRARY.encode_batch_fast(texts, add_special_tokens=False)]


def ours(texts, pieces=PIECES):
    found = []
    for runs in pieces.encode_batches(pl.Series("text", texts, dtype=pl.String)):
        assert runs.first == len(found)
        found += [ids.tolist() for ids in np.split(runs.ids, runs.start[1:-1])]
    return found


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_tokens_are_those_of_the_library(texts):
    assert ours(texts) == library(texts)


def test_every_ascii_character_is_read_as_the_library_reads_it():
    texts = [form.format(chr(code)) for code in range(1, 128) for form in ("{}", "a{}b", "{} ", " {}", "A{0}{0}1")]
    assert ours(texts) == library(texts)


def test_nothing_depends_on_how_texts_fall_into_batches(make_sentences, monkeypatch):
    texts = ["", *make_sentences(30), "", "naïve mugs " * 20, "x" * 400]
    whole = ours(texts)
    monkeypatch.setattr(wordpiece, "BATCH_BYTES", 100)
    assert ours(texts, WordPieces(PATH)) == whole == library(texts)


def test_more_words_than_the_table_first_holds_find_room():
    texts = [" ".join(f"w{i:x}" for i in range(start, start + 4_000)) for start in range(0, 40_000, 4_000)]
    assert ours(texts, WordPieces(PATH)) == library(texts)


def test_a_table_that_is_forgotten_is_filled_anew(make_sentences, monkeypatch):
    monkeypatch.setattr(wordpiece, "MAX_WORDS", 3)
    monkeypatch.setattr(wordpiece, "BATCH_BYTES", 100)
    texts = make_sentences(20)
    assert ours(texts, WordPieces(PATH)) == library(texts)


def test_a_slice_of_a_longer_column_is_read_alone():
    texts = pl.Series("text", ["not this", "a mug", "a tent", "nor this"])[1:3]
    assert [runs.ids.tolist() for runs in PIECES.encode_batches(texts)] == [sum(library(["a mug", "a tent"]), [])]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": None},
        {"normalizer": {"type": "BertNormalizer", "clean_text": True, "strip_accents": False, "lowercase": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": {"type": "BPE", "vocab": {}, "merges": []}},
        {"added_tokens": [{"content": "<a b>", "lstrip": False, "rstrip": False}]},
        {"added_tokens": [{"content": "[MASK]", "lstrip": True, "rstrip": False}]},
    ],
)
def test_other_tokenizers_are_left_to_the_library(change, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(PATH.read_text()) | change))
    assert WordPieces.reads(PATH)
    assert not WordPieces.reads(path)
