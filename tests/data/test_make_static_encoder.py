"""The distilling script: parts against slow references, the result against its teacher."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from thresher.models.encoders.minilm import find_minilm
from thresher.models.encoders.static import FOLDER

pytest.importorskip("torch")
pytest.importorskip("transformers")
SCRIPT = Path(__file__).parents[2] / "data" / "make_static_encoder.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_static_encoder", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def minilm():
    folder = find_minilm()
    if folder is None:
        pytest.skip("the encoders extra is not installed")
    return folder


def test_weights_are_smooth_inverse_frequencies_of_zipf_ranks(script):
    total = sum(1 / rank for rank in range(2, 102))
    expected = [1e-4 / (1e-4 + 1 / rank / total) for rank in range(2, 102)]
    np.testing.assert_allclose(script.sif_weights(100), expected, rtol=1e-12)


def test_the_shipped_tokenizer_cuts_words_as_minilm_does(minilm):
    full = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    full.no_truncation()
    full.no_padding()
    shipped = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for text in ("Unbelievably light trekking pack, 45 L!", "Café ☃ 日本", ""):
        assert shipped.encode(text).tokens == full.encode(text, add_special_tokens=False).tokens
    assert not {"[CLS]", "[SEP]", "[MASK]", "[unused3]"} & set(shipped.get_vocab())


def test_reduced_ids_point_to_the_same_tokens(script, minilm):
    tokenizer, old_ids = script.reduced_tokenizer(minilm)
    full = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    assert len(old_ids) == tokenizer.get_vocab_size()
    for new in (0, 1, 2, 5_000, len(old_ids) - 1):
        assert tokenizer.id_to_token(new) == full.id_to_token(old_ids[new])


def test_shipped_vectors_have_the_angles_of_minilms_token_states(script, minilm):
    tokenizer, old_ids = script.reduced_tokenizer(minilm)
    picked = np.random.default_rng(0).choice(np.arange(2_000, len(old_ids)), size=300, replace=False)
    states = script.forward_alone(minilm, [old_ids[i] for i in picked])
    shipped = load_file(FOLDER / "model.safetensors")["embeddings"][picked].astype(np.float32)

    def angles(x):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (x @ x.T)[np.triu_indices(len(x), 1)]

    assert np.corrcoef(angles(states - states.mean(axis=0)), angles(shipped))[0, 1] > 0.95


def test_padding_and_unknown_count_for_nothing():
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    rows = load_file(FOLDER / "model.safetensors")["embeddings"]
    for token in ("[PAD]", "[UNK]"):
        assert not rows[tokenizer.token_to_id(token)].any()
