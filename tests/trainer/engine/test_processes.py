"""What the launcher may ask of the processes, and what they need of each other."""

from types import SimpleNamespace

import pytest

from thresher.errors import OutputError, SettingsError
from thresher.trainer.engine.processes import open_accelerator, require_shared
from thresher.trainer.settings import TrainSettings


@pytest.mark.parametrize(
    ("flag", "name"), [("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM")]
)
def test_a_launcher_that_divides_the_model_is_refused(monkeypatch, flag, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{flag}", "true")
    with pytest.raises(SettingsError, match=f"the launcher asks for {name}, which divides it"):
        open_accelerator(TrainSettings())


def test_processes_that_do_not_see_the_output_folder_are_told_before_they_train(monkeypatch, tmp_path):
    monkeypatch.setattr("accelerate.utils.gather_object", lambda own: [*own, False, True, False])
    require_shared(tmp_path / "absent", SimpleNamespace(num_processes=1))
    with pytest.raises(OutputError, match=r"all processes must see .*2 of 4 do not \(first: rank 1\)"):
        require_shared(tmp_path, SimpleNamespace(num_processes=4))


def test_a_device_is_taken_and_left_to_the_launcher_of_several_processes(monkeypatch):
    assert open_accelerator(TrainSettings(device="cpu")).device.type == "cpu"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="device must be left to the launcher, .* got 'cpu'"):
        open_accelerator(TrainSettings(device="cpu"))


def test_where_a_run_takes_place_is_no_part_of_its_result():
    assert TrainSettings(device="cpu").to_json() == TrainSettings().to_json()
