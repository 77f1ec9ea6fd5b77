"""What commands show on standard error while they work, and what they say comes next."""

from types import SimpleNamespace

import pytest

from thresher.cli.next_steps import suggest_after_comparison, suggest_after_curve, suggest_selection, suggest_training
from thresher.cli.progress import _Lines, progress_display
from thresher.models.causal_lm.embedded import SMOLLM2_NAME
from thresher.progress import Progress
from thresher.trainer.engine.load_model import MINILM
from thresher.trainer.events import TrainEvent
from thresher.trainer.settings import TrainSettings


def test_a_note_is_shown_once(capsys):
    with progress_display(quiet=False) as show:
        for note in ("one", None, "one", "two", "one"):
            show(Progress(stage="embedding", done=1, total=2, note=note))
    assert capsys.readouterr().err.splitlines() == ["one", "two"]


def test_a_quiet_command_shows_nothing(capsys):
    with progress_display(quiet=True) as show:
        assert show is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("run", "name"),
    [("main/seed-0", "train on your rows, seed 0"), ("control/seed-2", "train on random rows, seed 2"), ("", "train")],
)
def test_a_run_is_named_for_people(run, name):
    assert TrainEvent(kind="step", run=run).stage == name


def test_time_left_is_in_minutes_and_never_negative(monkeypatch, capsys):
    now = iter([0.0, 0.0, 20.0, 40.0, 60.0])
    monkeypatch.setattr("thresher.cli.progress.time.monotonic", lambda: next(now))
    lines = _Lines()
    for done in (0, 100, 10, 30):  # it begins anew with more to do
        lines.show(Progress(stage="loss", done=done, total=10_000))
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "loss: 100 of 10,000, 5/s, about 33 min left",
        "loss: 30 of 10,000, 1/s, about 2.8 h left",
    ]


def test_the_first_line_comes_soon_and_a_finished_stage_has_no_time_left(monkeypatch, capsys):
    now = iter([0.0, 0.0, 1.9, 2.1, 9.0, 13.0])
    monkeypatch.setattr("thresher.cli.progress.time.monotonic", lambda: next(now))
    lines = _Lines()
    for done in (0, 1, 2, 50, 100):
        lines.show(Progress(stage="embedding", done=done, total=100))
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["embedding: 2 of 100, 0.95/s, about 103 s left", "embedding: 100 of 100, 7.7/s"]


def test_no_rate_is_told_where_only_one_number_was_seen(monkeypatch, capsys):
    now = iter([0.0, 0.0, 20.0])
    monkeypatch.setattr("thresher.cli.progress.time.monotonic", lambda: next(now))
    lines = _Lines()
    for _ in range(2):
        lines.show(Progress(stage="embedding", done=4700, total=4700))
    assert capsys.readouterr().err == "embedding: 4,700 of 4,700\n"


def test_paths_are_quoted_as_a_shell_takes_them():
    assert suggest_training("my rows") == "next: thresher train 'my rows' --eval ROWS --out adapter"
    assert suggest_selection("a.csv", "10%") == "next: thresher select a.csv --budget 10% --out chosen"


def test_a_comparison_names_the_method_that_is_clearly_better(tmp_path):
    def verdict(method, value, low, p):
        effect = SimpleNamespace(value=value, low=low, high=2 * value - low)
        return SimpleNamespace(method=method, n_rows=60, effect=effect, p_holm=p)

    manifest = SimpleNamespace(content={"run": {"inputs": ["gone.csv"]}})
    results = [verdict("k-center", 0.1, 0.05, 0.001), verdict("herding", 0.2, -0.1, 0.4)]
    found = SimpleNamespace(verdicts=results, manifest=manifest, content={"budgets": [30, 60]})
    assert suggest_after_comparison(found) == ["next: thresher select ROWS --method k-center --budget 60 --out chosen"]
    results[0].method = "herding quota=label kernel=dense"
    (line,) = suggest_after_comparison(found)
    assert "--method herding --quota label --set kernel=dense --budget 60" in line
    found.verdicts = results[1:]
    assert suggest_after_comparison(found) == ["next: thresher select ROWS --method random --budget 60 --out chosen"]
    (tmp_path / "rows.csv").touch()
    schema = {"name": "mapped", "kind": "classification", "columns": {"text": ["title", "body"], "label": ["a kind"]}}
    manifest.content = {"run": {"inputs": [str(tmp_path / "rows.csv")]}, "schema": schema, "id_column": "key"}
    read = "--map 'text=title+body,label=a kind' --id-column key"
    (line,) = suggest_after_comparison(found)
    assert line.removeprefix(f"next: thresher select {tmp_path}/rows.csv ").startswith(f"{read} --method random")
    manifest.content["schema"] = {**schema, "name": "text-label"}  # which is detected again
    assert "--map" not in suggest_after_comparison(found)[0]


def make_curve(label, settings, task="sft", model="org/base", verdict="all", variants=None):
    """Return a curve with one method, whose training had these settings."""
    content = {
        "settings": TrainSettings(**settings).resolved(task).to_json(),
        "model": {"name": model},
        "task": task,
        "run": {"inputs": []},
        "asked": {"variants": variants or {}},
    }
    return SimpleNamespace(
        enough={label: SimpleNamespace(unit="rows", verdict=verdict, high=10, is_whole_pool=True)},
        fits={label: SimpleNamespace(errors=[1.0])},
        content={"methods": {label: {}}},
        manifest=SimpleNamespace(content=content),
    )


def test_after_a_joint_curve_the_leaders_model_or_rank_is_named():
    big = {"random, model org/big": {"method": "random", "factor": "model", "value": "org/big"}}
    (line,) = suggest_after_curve(make_curve("random, model org/big", {}, variants=big))
    assert line == "next: thresher train ROWS --model org/big --eval ROWS --out adapter"
    high = {"herding quota=label, rank 64": {"method": "herding quota=label", "factor": "rank", "value": "64"}}
    (line,) = suggest_after_curve(make_curve("herding quota=label, rank 64", {}, variants=high))
    assert line == "next: thresher train ROWS --model org/base --lora-rank 64 --eval ROWS --out adapter"
    (line,) = suggest_after_curve(make_curve("herding quota=label, rank 64", {}, variants=high, verdict="enough"))
    assert "--method herding --quota label --budget 10" in line


@pytest.mark.parametrize(
    ("settings", "task", "model", "typed"),
    [
        ({"min_steps": 500}, "sft", SMOLLM2_NAME, "--min-steps 500"),
        ({"stop_at": 0.5}, "sft", SMOLLM2_NAME, "--stop-at 0.5"),
        ({"epochs": 3.0}, "classification", MINILM, "--epochs 3.0"),  # not 80 steps
        ({}, "classification", MINILM, ""),
        ({}, "classification", SMOLLM2_NAME, f"--model {SMOLLM2_NAME}"),
        ({}, "text", MINILM, f"--model {MINILM}"),
    ],
)
def test_the_line_repeats_the_training_that_was_measured(settings, task, model, typed):
    (line,) = suggest_after_curve(make_curve("random", settings, task, model))
    assert line == f"next: thresher train ROWS{typed and ' '}{typed} --eval ROWS --out adapter"


def test_after_a_comparison_of_two_sides_no_method_is_named():
    assert suggest_after_comparison(SimpleNamespace(content={"baseline": "without", "budgets": [9]})) == []


def test_no_selection_follows_where_every_number_of_rows_made_the_model_worse():
    curve = make_curve("random", {}, verdict="enough")
    gains = [{"n_rows": 50, "low": -0.04, "high": -0.01}, {"n_rows": 100, "low": -0.04, "high": -0.02}]
    curve.content["base"] = {"methods": {"random": {"gains": gains}}}
    (line,) = suggest_after_curve(curve)
    assert line.startswith("next: check rows, model and training settings first: training made the score worse")
    gains[0]["high"] = 0.01
    assert suggest_after_curve(curve) == ["next: thresher select ROWS --method random --budget 10 --out chosen"]
