"""The shipped static encoder is small and read by both libraries that it is said to fit."""

import numpy as np
import pytest

from thresher.models.encoders.static import FOLDER, StaticEncoder

TEXTS = ["a red coffee mug", "tent for two, 3 kg", "☃ snow", ""]


def test_the_file_is_small():
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000


def test_the_card_names_license_and_source():
    card = (FOLDER / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "sentence-transformers/all-MiniLM-L6-v2" in card


def test_model2vec_reads_the_folder():
    from model2vec import StaticModel

    found = StaticModel.from_pretrained(FOLDER).encode(TEXTS)
    np.testing.assert_allclose(found, StaticEncoder().encode(TEXTS), atol=1e-6)


def test_sentence_transformers_reads_the_folder():
    sentence_transformers = pytest.importorskip("sentence_transformers")
    found = sentence_transformers.SentenceTransformer(str(FOLDER), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, StaticEncoder().encode(TEXTS), atol=1e-6)
