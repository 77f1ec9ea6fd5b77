import json
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from thresher.errors import InputError
from thresher.features import compute, load_encoder, make_context
from thresher.models.encoders.minilm import find_minilm
from thresher.models.encoders.sentence import SentenceEncoder
from thresher.models.encoders.static import FOLDER as STATIC_FOLDER
from thresher.models.token_batches import token_batches

pytestmark = pytest.mark.skipif(
    find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
)
LIMIT = 48  # tokens that the tiny model reads


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A random BERT of two small layers, saved as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(STATIC_FOLDER / "tokenizer.json"))
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder / "plain")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder / "plain")
    transformer = Transformer(str(folder / "plain"), max_seq_length=LIMIT)
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(folder / "model"))
    return str(folder / "model")


def encoder(folder, **settings):
    return load_encoder(folder, device="cpu", **settings)


def test_vectors_equal_those_of_sentence_transformers_one_text_at_a_time(tiny_model, make_sentences):
    from sentence_transformers import SentenceTransformer

    texts = make_sentences(30)
    reference = SentenceTransformer(tiny_model, device="cpu")
    expected = np.concatenate([reference.encode([text], normalize_embeddings=True) for text in texts])
    found = encoder(tiny_model, batch_tokens=100).encode(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_text_without_tokens_has_the_zero_vector(tiny_model):
    model = encoder(tiny_model)
    x = model.encode(["", "mug", " ", "ฉันชอบกินข้าวผัด", "ราคาหุ้นตกหนัก", "mug ☃"])
    np.testing.assert_array_equal(
        x[[0, 2, 3, 4]], np.zeros((4, 32))
    )  # two texts of unknown words are not the same text
    np.testing.assert_allclose(np.linalg.norm(x[[1, 5]], axis=1), 1, rtol=1e-6)
    assert f"encoder '{tiny_model}' does not know most words of 3 of 6 texts" in model.notes()[0]


def test_order_and_batch_size_change_a_vector_by_rounding_only(tiny_model, make_sentences):
    texts = make_sentences(50)
    together = encoder(tiny_model).encode(texts)
    np.testing.assert_allclose(encoder(tiny_model, batch_tokens=1).encode(texts[::-1])[::-1], together, atol=1e-5)


def test_long_texts_are_read_to_their_ends_in_windows(tiny_model, make_rows, make_sentences):
    shared = " ".join(make_sentences(40))
    texts = [f"{shared} {end}" for end in ("mug", "two red lamps", "mug")] + ["mug " * LIMIT, "mug " * (LIMIT + 1)]
    notes = []
    context = make_context(encoder=tiny_model, device="cpu", on_progress=lambda event: notes.append(event.note))
    features = compute(make_rows(texts), ["embedding"], context)
    vectors = features["embedding"]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    note = f"4 of 5 texts exceed the limit of encoder '{tiny_model}'; each is read in windows, whose vectors "
    assert [each for each in notes if each] == [f"{note}are averaged"]
    assert features.notes == {"embedding": {"rows_read_in_windows": 4}}
    notes.clear()
    again = compute(make_rows(texts[::-1]), ["embedding"], context)
    np.testing.assert_array_equal(again["embedding"][::-1], vectors)
    assert [each for each in notes if each] == [f"{note}are averaged"]
    assert again.notes == features.notes


def test_a_text_that_fits_has_the_vector_that_it_had_and_a_long_one_the_mean_of_its_windows(tiny_model, make_sentences):
    model = encoder(tiny_model)
    texts = pl.Series(["mug " * LIMIT, "mug " * (LIMIT - 2), " ".join(make_sentences(300))])
    assert model.find_long(texts).tolist() == [len(model._counter.encode(text)) > LIMIT for text in texts]
    windows = model._split_windows(texts[2])
    assert len(windows) == 16
    assert all(len(model._counter.encode(window)) <= LIMIT for window in windows)
    assert texts[2].startswith(windows[0])
    assert texts[2].endswith(windows[-1])
    ((_, values),) = model.encode_long(texts[2:])
    mean = model.encode(windows).mean(axis=0)
    np.testing.assert_allclose(values[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_a_second_run_loads_no_model(tiny_model, make_rows, make_sentences, monkeypatch):
    rows = make_rows(make_sentences(12))
    context = make_context(encoder=tiny_model, device="cpu")
    first = compute(rows, ["embedding"], context)["embedding"]
    monkeypatch.setattr(SentenceEncoder, "_model", property(lambda _self: pytest.fail("the model was loaded")))
    np.testing.assert_array_equal(compute(rows, ["embedding"], context)["embedding"], first)


def test_the_fingerprint_covers_weights_pooling_tokenizer_and_precision(tiny_model, tmp_path):
    import shutil

    before = encoder(tiny_model).fingerprint
    assert encoder(tiny_model, dtype="bfloat16").fingerprint != before
    for pattern in ("**/model.safetensors", "*Pooling/config.json", "tokenizer.json"):
        copy = tmp_path / pattern.replace("/", "-").replace("*", "")
        shutil.copytree(tiny_model, copy)
        assert encoder(str(copy)).fingerprint == before
        (path,) = copy.glob(pattern)
        content = path.read_bytes()
        path.write_bytes(content + b"\n" if path.suffix == ".json" else content[:-1] + bytes([content[-1] ^ 1]))
        assert encoder(str(copy)).fingerprint != before, pattern


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold a model, found none"):
        _ = encoder(str(tmp_path)).fingerprint
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(InputError, match=r"must hold a sentence-transformers model, but loading it says '.+'; check"):
        encoder(str(tmp_path)).encode(["x"])


def test_code_that_comes_with_a_model_is_not_run(tiny_model, tmp_path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    (copy / "custom.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Module: pass\n")
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["type"] = "custom.Module"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"code of others is never run, got 'custom\.Module'"):
        encoder(str(copy)).encode(["x"])
    assert not (tmp_path / "ran").exists()


def test_a_device_that_is_not_there_is_refused(tiny_model):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="check the files and the device"):
        load_encoder(tiny_model, device="cuda").encode(["x"])


def test_too_little_memory_names_the_setting(tiny_model, monkeypatch):
    import torch

    def full(*_arguments, **_settings):
        raise torch.OutOfMemoryError("CUDA out of memory")

    tiny = encoder(tiny_model, batch_tokens=64)
    monkeypatch.setattr(tiny._model, "forward", full)
    with pytest.raises(InputError, match=r"a batch of 2 texts, 64 tokens at most, must fit .* set batch_tokens lower"):
        tiny.encode(["mug", "cup"])


def test_batches_keep_their_budget_and_hold_every_text_once_longest_first():
    rng = np.random.default_rng(0)
    for budget in (1, 50, 1000):
        tokens = rng.integers(0, 80, size=300)
        batches = list(token_batches(tokens, budget))
        assert sorted(np.concatenate(batches).tolist()) == list(range(300))
        assert all(len(rows) == 1 or len(rows) * tokens[rows].max() <= budget for rows in batches if tokens[rows].max())
        assert np.all(np.diff(tokens[np.concatenate(batches)]) <= 0)


def test_a_batch_ends_before_the_row_that_would_raise_padding_above_a_tenth():
    rng = np.random.default_rng(0)
    for tokens in (rng.integers(0, 500, size=200), rng.geometric(0.01, size=200), np.arange(1, 300)):
        batches = list(token_batches(tokens, 4_000))
        for i, rows in enumerate(batches):
            laid = len(rows) * tokens[rows].max()
            padding = laid - tokens[rows].sum()
            assert padding <= 0.1 * laid or padding <= 32
            if i + 1 == len(batches):
                continue
            more = tokens[[*rows, batches[i + 1][0]]]
            laid = len(more) * more.max()
            assert laid > 4_000 or (laid - more.sum() > 0.1 * laid and laid - more.sum() >= 32)
    assert len(list(token_batches(np.arange(1, 300), 10**6, max_padding=1))) == 1


def test_the_embedded_minilm_reads_meaning_without_the_network():
    if find_minilm() is None:
        pytest.skip("the encoders extra is not installed")
    x = load_encoder("minilm", device="cpu").encode(pl.Series(["a coffee mug", "a cup for tea", "card was declined"]))
    assert x.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
    assert x[0] @ x[1] > x[0] @ x[2] + 0.2


def test_the_fingerprint_covers_a_layer_that_is_no_safetensors(tiny_model, tmp_path):
    """A Dense often is a pytorch_model.bin in its own folder; it was left out."""
    import shutil

    import torch

    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.zeros(2)}, copy / "2_Dense" / "pytorch_model.bin")
    before = encoder(str(copy)).fingerprint
    torch.save({"linear.weight": torch.ones(2)}, copy / "2_Dense" / "pytorch_model.bin")
    assert encoder(str(copy)).fingerprint != before


def test_a_model_that_is_replaced_before_it_is_loaded_is_refused(tiny_model, tmp_path):
    """Its vectors would be kept under the fingerprint of the model that was there before."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    found = encoder(str(copy))
    assert found.fingerprint
    config = copy / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(InputError, match="must stay as they are while it is used.*run the same command again"):
        found.encode(["a"])
