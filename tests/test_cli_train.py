"""The `train` command: its options, and what its user is told."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import fields
from enum import Enum

import pytest

from thresher.cli.train import train as command
from thresher.dataset import load
from thresher.trainer.settings import TrainSettings
from thresher.training import train


def test_train_command_has_the_names_and_defaults_of_the_function_and_of_the_settings():
    function = {name: entry.default for name, entry in inspect.signature(train).parameters.items()}
    function |= {"out": inspect.Parameter.empty}  # the command has nobody to give a temporary folder to
    told = {name: entry.default for name, entry in inspect.signature(load).parameters.items()}
    told |= function | {field.name: field.default for field in fields(TrainSettings)}
    has = inspect.signature(command).parameters
    assert {field.name for field in fields(TrainSettings)} <= set(has)
    assert set(function) - {"settings", "on_event"} <= set(has)
    for name, entry in has.items():
        if name not in {"as_json", "quiet"}:
            default = entry.default.value if isinstance(entry.default, Enum) else entry.default
            assert default == told[name], name


@pytest.mark.slow
def test_a_folder_that_is_taken_is_one_sentence_from_every_process(tiny_bert, colour_rows, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in colour_rows))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "other").touch()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29613", "-m", "thresher", "train"]
    done = subprocess.run(
        [sys.executable, *launch, data, "--model", tiny_bert, "--out", tmp_path / "taken", "-q"],
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert b"must be new or empty" in done.stderr
    assert b"bug of ours" not in done.stderr
