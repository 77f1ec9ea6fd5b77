"""Trackers: every run of a group reaches them, offline; none is imported unless it is asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import thresher as th
from thresher.errors import MissingExtraError, SettingsError
from thresher.trainer.tracking import backends
from thresher.trainer.tracking.tracker import Tracker, parse_trackers

ROWS = [
    {"text": f"the cat {'sat' if number % 2 else 'ran'} {number}", "label": "ab"[number % 2]} for number in range(40)
]
SETTINGS = {"max_steps": 4, "batch_size": 8}


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "boards"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path


def train(tiny_bert, out, report_to, notes=None):
    settings = th.TrainSettings(**SETTINGS)
    listen = None if notes is None else lambda event: notes.append(event.message)
    given = {"model": tiny_bert, "eval": 0.3, "settings": settings, "general": "none", "base": "none"}
    return th.train(ROWS, out=out, report_to=report_to, on_event=listen, **given)


def read_board(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in board.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_has_steps_and_results_of_each_run(tiny_bert, places):
    pytest.importorskip("tensorboard")
    adapter = train(tiny_bert, places / "adapter", "tensorboard")
    (run,) = (places / "boards" / "train adapter").iterdir()
    board = read_board(run)
    assert run.name == "main-seed-0"
    assert [step for step, _ in board["loss"]] == [1, 2, 3, 4]
    accuracy = adapter.metrics["held_out"]["accuracy"]["value"]
    assert board["held_out/accuracy"][-1][1] == pytest.approx(accuracy)


@pytest.mark.filterwarnings("ignore")
def test_a_curve_is_one_group_with_a_run_for_each_cell(tiny_bert, places):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    given = {"model": tiny_bert, "settings": th.TrainSettings(**SETTINGS), "methods": "random"}
    curve = th.learning_curve(
        ROWS, eval="30%", sizes=(8, 16), seeds=2, grid=True, report_to="mlflow", out=places / "curve", **given
    )
    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("thresher").experiment_id])
    assert {run.data.tags["group"] for run in runs} == {"curve curve"}
    assert len(runs) == len(curve.cells)
    seen = {(run.data.params["method"], run.data.params["rows"], run.data.params["seed"]) for run in runs}
    assert seen == {(row["method"], str(row["n_rows"]), str(row["seed"])) for row in curve.cells.to_dicts()}
    assert all(0 <= run.data.metrics["test/accuracy"] <= 1 for run in runs)
    assert all(run.info.status == "FINISHED" for run in runs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_offline_modes_of_hosted_trackers(name, tiny_bert, places):
    pytest.importorskip(name)
    notes = []
    train(tiny_bert, places / "adapter", name, notes)
    assert not [note for note in notes if "failed" in note]
    written = [path for path in places.rglob("*") if path.is_file() and name in str(path)]
    assert any(path.stat().st_size for path in written)


def test_a_tracker_that_fails_never_fails_the_work(monkeypatch):
    class Broken(backends.TrackedRun):
        package = "json"

        def __init__(self, group, name, config):
            pass

        def log(self, values, step):
            raise ConnectionError("no route\nto the host")

        def finish(self, summary):
            raise AssertionError("it was left out")

    monkeypatch.setitem(backends.TRACKERS, "broken", Broken)
    notes = []
    tracker = Tracker("broken", "group", notes.append)
    tracker.start("run", {})
    tracker.log("run", {"loss": 1.0, "text": "no number", "gap": float("nan")}, 1)
    tracker.finish("run", {"accuracy": 1.0})
    assert notes == ["broken failed, and nothing more is sent to it: ConnectionError: no route"]


def test_unknown_and_missing_trackers_are_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(
        SettingsError, match="'wand' must be one of wandb, mlflow, trackio, tensorboard; did you mean 'wandb'"
    ):
        parse_trackers("tensorboard,wand".removeprefix("tensorboard,"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[mlflow\]'"):
        parse_trackers("mlflow")
    assert parse_trackers("none") == parse_trackers(None) == []


def test_nothing_is_imported_unless_it_is_asked_for():
    code = "import sys, thresher.trainer.tracking.tracker as t, json; t.parse_trackers(None)\n"
    code += "print(json.dumps([n for n in ('wandb', 'mlflow', 'trackio', 'tensorboard') if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_tracker_changes_no_identity(tiny_bert, places, monkeypatch):
    seen = []

    class Recorded(backends.TrackedRun):
        package = "json"

        def __init__(self, group, name, config):
            seen.append((group, name, config["max_steps"]))

        def log(self, values, step):
            seen.append(step)

        def finish(self, summary):
            seen.append(sorted(summary))

    monkeypatch.setitem(backends.TRACKERS, "recorded", Recorded)
    first = train(tiny_bert, places / "adapter", "recorded")
    assert seen[0] == ("train adapter", "main/seed-0", 4)
    assert "held_out/accuracy" in seen[-1]
    again = train(tiny_bert, places / "adapter", None)  # read back
    assert again.manifest.identity == first.manifest.identity
    assert Path(first.path) == again.path
