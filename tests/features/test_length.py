import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from thresher.errors import NotFoundError
from thresher.features import make_context
from thresher.features.length import Length, find_tokenizer_file


def lengths(rows, **context):
    return Length().compute(rows, make_context(**context))


def test_lengths_are_tokens_of_the_embedded_tokenizer_one_text_at_a_time(make_rows, make_sentences):
    texts = [*make_sentences(200), "", "Ünïcode ☃ 日本語"]
    tokenizer = Tokenizer.from_file(str(find_tokenizer_file(None)))
    expected = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    found = lengths(make_rows(texts))
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_a_long_text_is_counted_whole(make_rows):
    assert lengths(make_rows(["mug " * 5_000])).tolist() == [5_000]


def test_no_rows_have_no_lengths(make_rows):
    assert lengths(make_rows([])).tolist() == []


@pytest.fixture
def word_tokenizer(tmp_path):
    """A tokenizer that splits at spaces, cuts at 3 tokens, and adds a special token."""
    spec = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"?": 0, "mug": 1}, "unk_token": "?"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    return tmp_path


def test_a_tokenizer_of_the_user_counts_without_cutting(make_rows, word_tokenizer):
    rows = make_rows(["mug", "a mug for you and me", ""])
    assert lengths(rows, tokenizer=str(word_tokenizer)).tolist() == [1, 6, 0]
    assert lengths(rows, tokenizer=str(word_tokenizer / "tokenizer.json")).tolist() == [1, 6, 0]


def test_cached_lengths_belong_to_their_tokenizer(make_rows, word_tokenizer, cache):
    rows = make_rows(["thermos flasks"])
    first = lengths(rows, cache=cache)
    assert lengths(rows, cache=cache, tokenizer=str(word_tokenizer)).tolist() == [2]
    assert lengths(rows, cache=cache).tolist() == first.tolist() != [2]


def test_a_folder_without_a_fast_tokenizer_is_refused(make_rows, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match=r"tokenizer '.*empty': tokenizer.json must be in it, found none"):
        lengths(make_rows(["x"]), tokenizer=str(tmp_path / "empty"))
