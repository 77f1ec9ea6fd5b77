"""What a classifier reads of the token states, against sentence-transformers' own pooling."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from thresher.errors import InputError
from thresher.models.causal_lm.base_model import BaseModel
from thresher.trainer.engine.pooling import MODES, Pooling, choose_pooling

MODULE = "sentence_transformers.models."
LATER = "sentence_transformers.sentence_transformer.modules."


def make_base(folder, config=None, *, pooling=None, kinds=("Transformer", "Pooling"), module=MODULE):
    """Return a base of a configuration, with sentence-transformers' files if pooling is given."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **(config or {})}))
    if pooling is not None:
        modules = [{"path": f"{i}_{kind}" if i else "", "type": f"{module}{kind}"} for i, kind in enumerate(kinds)]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling/config.json").write_text(pooling if isinstance(pooling, str) else json.dumps(pooling))
    return BaseModel(name="m", folder=Path(folder), fingerprint="", max_positions=None)


@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), ("cls", "mean"), ("max", "lasttoken", "mean")])
def test_vectors_are_those_of_sentence_transformers(modes):
    oracle = pytest.importorskip("sentence_transformers.sentence_transformer.modules.pooling").Pooling
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(4, 7, 5, generator=generator)
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 4, 1, 6)])
    expected = oracle(5, modes)({"token_embeddings": states, "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(Pooling(modes).apply(states, mask), expected)
    unit = Pooling(modes, is_normalized=True).apply(states, mask)
    np.testing.assert_allclose(unit.norm(dim=1), 1, rtol=1e-5)
    torch.testing.assert_close(unit, expected / expected.norm(dim=1, keepdim=True))


def test_the_embedded_encoder_reads_what_it_was_trained_for():
    minilm = pytest.importorskip("thresher.models.encoders.minilm")
    if minilm.find_minilm() is None:
        pytest.skip("MiniLM is not installed")
    base = BaseModel(name="m", folder=minilm.find_minilm(), fingerprint="", max_positions=None)
    assert choose_pooling(base) == Pooling(("mean",), is_normalized=True)


@pytest.mark.parametrize(
    ("content", "modes"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["max", "cls"], "pooling_mode_mean_tokens": True}, ("max", "cls")),
        ({"word_embedding_dimension": 8}, ("mean",)),  # as sentence-transformers does
    ],
)
@pytest.mark.parametrize("module", [MODULE, LATER])
def test_the_pooling_of_sentence_transformers_is_read(tmp_path, content, modes, module):
    assert choose_pooling(make_base(tmp_path, pooling=content, module=module)) == Pooling(modes)
    kinds = ("Transformer", "Pooling", "Normalize")
    assert choose_pooling(make_base(tmp_path, pooling=content, kinds=kinds)) == Pooling(modes, is_normalized=True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "roberta"}, Pooling(("mean",))),
        ({"model_type": "bert", "is_decoder": True}, Pooling(("lasttoken",))),
        ({"model_type": "llama"}, Pooling(("lasttoken",))),
        ({"model_type": "modernbert", "classifier_pooling": "mean"}, None),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, None),
        ({"model_type": "bart", "is_encoder_decoder": True}, None),
        ({"model_type": "nobody-knows"}, None),
    ],
)
def test_without_these_files_the_architecture_decides(tmp_path, config, expected):
    base = make_base(tmp_path, config)
    assert choose_pooling(base) == expected
    assert choose_pooling(base, "head") is None
    assert choose_pooling(base, "max") == Pooling(("max",))


def test_what_was_asked_for_goes_before_the_files(tmp_path):
    base = make_base(tmp_path, pooling={"pooling_mode": "mean"}, kinds=("Transformer", "Pooling", "Normalize"))
    assert choose_pooling(base, "cls") == Pooling(("cls",), is_normalized=True)
    assert choose_pooling(base, "head") is None


def test_modules_without_a_pooling_say_nothing(tmp_path):
    base = make_base(tmp_path, {"model_type": "bert"}, pooling={}, kinds=("Transformer", "SpladePooling"))
    assert choose_pooling(base) == Pooling(("mean",))


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode": "median"}, "must be of cls, max, .*got 'median'; name one with --pooling"),
        ("{", "config.json must be JSON, got"),
        ("[]", "config.json must be an object, got a list"),
    ],
)
def test_a_damaged_pooling_is_one_sentence(tmp_path, pooling, message):
    base = make_base(tmp_path, pooling=pooling)
    with pytest.raises(InputError, match=message) as raised:
        choose_pooling(base)
    assert "\n" not in str(raised.value)
    shutil.rmtree(tmp_path / "1_Pooling")
    with pytest.raises(InputError, match="found no such file; copy the model again"):
        choose_pooling(base)
