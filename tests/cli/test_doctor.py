"""`thresher doctor` knows every extra, and its commands fit how thresher is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import tomllib
from pathlib import Path

import pytest

from thresher.cli.doctor import EXTRAS
from thresher.cli.main import main
from thresher.errors import MissingExtraError, install_command

ROOT = Path(__file__).parents[2]
FOR_DEVELOPERS = {"counts", "bench", "docs", "all", "dev"}


def test_every_extra_is_listed_with_packages_that_it_has():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra.name for extra in EXTRAS} == set(declared) - FOR_DEVELOPERS
    for extra in EXTRAS:
        text = " ".join(declared[extra.name]).lower()
        assert all(name.lower() in text for name in extra.packages.values()), extra.name


def test_a_missing_package_is_named_with_its_use_and_its_command(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else real(name))
    assert main(["doctor"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "optuna" in line]
    assert line.startswith("missing  tune")
    assert install_command("tune") in line
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["extras"]["tune"]["missing"] == ["optuna"]


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'thresher[train]'"),
        ({"dir_info": {"editable": True}, "url": "file:///src/my%20clone"}, "pip install '/src/my clone[train]'"),
        (
            {"archive_info": {}, "url": "file:///w/thresher-0.1.0.whl"},
            "pip install 'thresher[train] @ file:///w/thresher-0.1.0.whl'",
        ),
    ],
)
def test_the_command_fits_how_thresher_was_installed(origin, command, monkeypatch):
    class Installed:
        def read_text(self, name):
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr("thresher.errors.distribution", lambda name: Installed())
    assert install_command("train") == command
    assert command in str(MissingExtraError("torch", "train", "train"))


def test_in_the_clone_itself_the_command_names_the_folder_here(monkeypatch):
    origin = json.loads(importlib.metadata.distribution("thresher").read_text("direct_url.json"))
    monkeypatch.chdir(origin["url"].removeprefix("file://"))
    assert install_command("train") == "pip install '.[train]'"
