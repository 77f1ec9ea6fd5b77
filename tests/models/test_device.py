import pytest

from thresher.errors import SettingsError
from thresher.models.device import check_device

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", [None, "cpu"])
def test_the_cpu_is_always_there(name):
    check_device(name)


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:-1", ""])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(SettingsError, match=f"got '{name}'"):
        check_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_and_not_the_model_blamed():
    with pytest.raises(SettingsError, match="found 0 on this machine"):
        check_device("cuda")


def test_a_gpu_number_beyond_the_last_one_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(SettingsError, match="found 2 on this machine"):
        check_device("cuda:2")
