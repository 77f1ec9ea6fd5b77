import re

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from thresher.errors import InputError
from thresher.features import load_encoder
from thresher.models.encoders import wordpiece
from thresher.models.encoders.encoder import finite_unit_rows
from thresher.models.encoders.static import FOLDER, StaticEncoder


def slow_reference(text: str) -> np.ndarray:
    """Mean of the dequantized vectors of the known tokens, then to norm 1, in float64."""
    tensors = load_file(FOLDER / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    rows = [tensors["embeddings"][i].astype(float) * float(tensors["weights"][i]) for i in ids]
    mean = np.mean(rows, axis=0) if rows else np.zeros(256)
    norm = np.linalg.norm(mean)
    return mean / norm if norm else mean


def test_a_vector_is_the_normalized_mean_of_its_tokens(make_sentences):
    texts = [*make_sentences(20), "unbelievably ☃ stainless"]
    expected = np.stack([slow_reference(text) for text in texts])
    found = StaticEncoder().encode(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_text_without_known_tokens_has_the_zero_vector():
    np.testing.assert_array_equal(StaticEncoder().encode(["", "   ", "☃☃"]), np.zeros((3, 256)))


def test_neighbors_and_order_do_not_matter_at_all(make_sentences):
    texts = make_sentences(64)
    encoder = StaticEncoder()
    together = encoder.encode(texts)
    np.testing.assert_array_equal(together[::-1], encoder.encode(texts[::-1]))
    np.testing.assert_array_equal(together, np.concatenate([encoder.encode([text]) for text in texts]))


def test_a_text_longer_than_a_batch_is_read_to_its_end(monkeypatch):
    monkeypatch.setattr(wordpiece, "BATCH_BYTES", 64)
    text = "mug " * 50 + "tent " * 50
    whole = StaticEncoder().encode([text])
    np.testing.assert_allclose(whole[0], slow_reference(text), atol=1e-6)
    assert np.abs(whole - StaticEncoder().encode(["mug " * 50])).max() > 0.01


def test_near_meanings_lie_nearer_than_far_ones():
    x = StaticEncoder().encode(["a coffee mug", "a tea cup", "my card was declined"])
    assert x[0] @ x[1] > x[0] @ x[2] + 0.2


def test_batches_cover_more_rows_than_fit_in_one(monkeypatch, make_sentences):
    monkeypatch.setattr(wordpiece, "BATCH_BYTES", 200)
    texts = pl.Series(make_sentences(20))
    assert len(list(StaticEncoder().encode_batches(texts))) > 2
    positions = np.concatenate([batch.positions for batch in StaticEncoder().encode_batches(texts)])
    assert sorted(positions.tolist()) == list(range(20))


def test_the_encoder_says_what_it_is():
    encoder = load_encoder("static")
    assert (encoder.name, encoder.dimension, encoder.notes()) == ("static-minilm-256", 256, [])
    assert re.fullmatch("[0-9a-f]{32}", encoder.fingerprint)


def test_nan_is_refused_with_its_count():
    with pytest.raises(InputError, match=r"encoder 'x' must give finite vectors, got 1 of 2 with NaN or infinity"):
        finite_unit_rows(np.array([[1.0, 2.0], [np.nan, 0.0]]), by="x")
