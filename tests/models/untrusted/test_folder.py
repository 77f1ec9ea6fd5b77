import json
import os
import shutil
from pathlib import Path

import pytest

from thresher.errors import InputError
from thresher.models.causal_lm.base_model import find_base
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.untrusted.folder import is_plain_name
from thresher.models.untrusted.weights import read_weights


def shard(folder):
    """Split the weights of a model into two files and an index, as the Hub has them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        part = {name: tensors[name] for name in names if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def test_a_model_in_several_files_is_the_same_and_each_of_them_counts(tiny_llama, tmp_path):
    import torch

    folder = shard(shutil.copytree(tiny_llama, tmp_path / "model"))
    ids = torch.arange(10)[None]
    with torch.inference_mode():
        one = LanguageModel(str(tiny_llama), device="cpu").model(input_ids=ids).logits
        other = LanguageModel(str(folder), device="cpu").model(input_ids=ids).logits
    assert torch.equal(one, other)
    for path in sorted(folder.glob("*.safetensors")):
        before = LanguageModel(str(folder)).fingerprint, find_base(folder).fingerprint
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        after = LanguageModel(str(folder)).fingerprint, find_base(folder).fingerprint
        assert all(one != other for one, other in zip(before, after, strict=True)), path.name


def link_into_hub_cache(source, cache):
    """Lay out a model as the Hub's cache does: links in a snapshot to blobs."""
    repository = cache / "models--owner--name"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        blob = repository / "blobs" / f"{number:040x}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_the_cache_of_the_hub_may_hold_links(tiny_llama, tmp_path, monkeypatch):
    snapshot = link_into_hub_cache(tiny_llama, tmp_path / "hub")
    assert find_base(snapshot).n_vocabulary == 320
    # a folder that was fetched into a place of its own, whose links lead to the user's cache
    local = tmp_path / "local"
    local.mkdir()
    for path in snapshot.iterdir():
        (local / path.name).symlink_to(path.resolve())
    with pytest.raises(InputError, match=r"all files must lie in its folder, and '[\w.]+' is a link to"):
        find_base(local)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_base(local).n_vocabulary == 320
    # not any folder that is called blobs
    (tmp_path / "blobs").mkdir()
    shutil.copy(tiny_llama / "config.json", tmp_path / "blobs" / "c")
    (local / "config.json").unlink()
    (local / "config.json").symlink_to(tmp_path / "blobs" / "c")
    with pytest.raises(InputError, match="is a link to"):
        find_base(local)


def test_a_folder_that_is_itself_a_link_is_read(tiny_llama, tmp_path):
    (tmp_path / "model").symlink_to(tiny_llama, target_is_directory=True)
    assert find_base(tmp_path / "model").fingerprint == find_base(tiny_llama).fingerprint


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("../model.safetensors", False),
        ("/model.safetensors", False),
        ("a/model.safetensors", False),
        ("a\\model.safetensors", False),
        ("C:model.safetensors", False),
        (".model.safetensors", False),
        ("model.safetensors\0", False),
        ("model.bin", False),
        ("", False),
    ],
)
def test_plain_names_have_no_folder(name, is_plain):
    assert is_plain_name(name) == is_plain


def test_headers_say_what_the_library_reads(tiny_llama, tmp_path):
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "all.safetensors"
    kinds = [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.float8_e4m3fn, torch.int64]
    save_file({str(kind): torch.zeros(3, 2).to(kind) for kind in kinds} | {"none": torch.zeros(0, 5)}, path)
    for file in (path, tiny_llama / "model.safetensors"):
        with safe_open(file, framework="pt") as library:
            shapes = {key: tuple(library.get_slice(key).get_shape()) for key in library.keys()}  # noqa: SIM118
        weights = read_weights([file], owner="a model")
        assert weights.shapes == {key: shape for key, shape in shapes.items() if 0 not in shape}
        assert weights.n_bytes == Path(file).stat().st_size
