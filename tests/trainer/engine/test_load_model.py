import json
import shutil
from pathlib import Path

import pytest

from thresher.errors import InputError, NotFoundError, SettingsError
from thresher.models.causal_lm.base_model import find_base, load_tokenizer
from thresher.trainer.engine.load_model import (
    MINILM,
    build_4bit_options,
    find_minilm_base,
    find_named_base,
    load_model,
)
from thresher.trainer.settings import TrainSettings


def test_the_fingerprint_follows_the_content_and_not_the_place(tiny_llama, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_llama, copy)
    assert find_base(copy).fingerprint == find_base(tiny_llama).fingerprint
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert find_base(copy).fingerprint != find_base(tiny_llama).fingerprint


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"])
def test_the_fingerprint_follows_tokenizer_and_chat_template(tiny_llama, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_llama, copy)
    (copy / name).write_text((copy / name).read_text() + " ")
    assert find_base(copy).fingerprint != find_base(tiny_llama).fingerprint


def test_a_model_that_cannot_be_reached_is_one_sentence():
    with pytest.raises(NotFoundError, match="^model 'nobody/nothing': .* be reached; .*name a local folder$") as raised:
        find_base("nobody/nothing")
    assert "\n" not in str(raised.value)


def test_what_is_neither_folder_nor_hub_id_is_one_sentence():
    with pytest.raises(NotFoundError, match="found no such folder, and it is not a Hub id"):
        find_base("no such/folder/at all")


def test_pickled_weights_are_refused(tiny_llama, tmp_path):
    shutil.copy(tiny_llama / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(InputError, match="weights must be safetensors, found none"):
        find_base(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold config.json, found none"):
        find_base(tmp_path)


def test_a_model_that_needs_its_own_code_is_refused_and_the_code_is_not_run(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "m")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    (tmp_path / "m/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    base = find_base(tmp_path / "m")
    with pytest.raises(InputError, match="cannot be loaded for sft"):
        load_model(base, task="sft", settings=TrainSettings(), pad_id=0)
    assert not (tmp_path / "ran").exists()


def test_an_encoder_is_refused_as_a_language_model(tiny_bert):
    tokenizer = load_tokenizer(find_base(tiny_bert))
    with pytest.raises(InputError, match="is an encoder"):
        load_model(find_base(tiny_bert), task="sft", settings=TrainSettings(), pad_id=tokenizer.pad_token_id)


def test_a_folder_without_a_tokenizer_is_refused(tiny_llama, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_llama / name, tmp_path)
    with pytest.raises(InputError, match="has no tokenizer"):
        load_tokenizer(find_base(tmp_path))


def test_four_bit_without_a_gpu_is_one_sentence():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SettingsError, match="load_in_4bit needs a CUDA GPU, found none"):
        build_4bit_options(TrainSettings())


@pytest.mark.parametrize("name", ["minilm", MINILM])
def test_minilm_is_trained_by_its_names_without_the_hub(name):
    assert find_named_base(name).fingerprint == find_minilm_base().fingerprint


def test_a_folder_of_that_name_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("minilm").mkdir()
    with pytest.raises(InputError, match="minilm"):
        find_named_base("minilm")
