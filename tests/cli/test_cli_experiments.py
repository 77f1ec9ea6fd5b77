"""`thresher curve`, `compare` and `tune`: their options, and what their users are told."""

import inspect
import json
from dataclasses import fields
from typing import get_type_hints

import pytest

from thresher.cli.compare import compare as compare_command
from thresher.cli.curve import _format_points
from thresher.cli.curve import curve as curve_command
from thresher.cli.experiment_options import OutputSettings
from thresher.cli.main import main
from thresher.cli.tune import tune as tune_command
from thresher.dataset.settings import EvalReadSettings, PoolSettings
from thresher.dataset.values.given_settings import GivenSettings
from thresher.errors import InputError, SettingsError
from thresher.experiments.cells import worker_pool
from thresher.experiments.comparison import compare
from thresher.experiments.learning_curve import learning_curve
from thresher.experiments.settings import (
    ComparisonOptions,
    ComparisonSettings,
    CurveOptions,
    CurveSettings,
    TuneOptions,
    TuneSettings,
    parse_method_settings,
    parse_train_settings,
)
from thresher.experiments.tuning import tune
from thresher.numeric.units import parse_seconds
from thresher.subset.budget import parse_budget
from thresher.validation import build_settings

EXPERIMENTS = [
    (curve_command, learning_curve, CurveSettings, CurveOptions),
    (compare_command, compare, ComparisonSettings, ComparisonOptions),
    (tune_command, tune, TuneSettings, TuneOptions),
]


@pytest.mark.parametrize(("command", "function", "settings", "options"), EXPERIMENTS)
def test_settings_options_function_and_command_say_the_same(command, function, settings, options):
    defaults = {field.name: field.default for field in fields(settings)}
    types = {name: kind for name, kind in get_type_hints(settings).items() if name in defaults}
    hints = get_type_hints(options)
    assert set(hints) == set(types)
    lists = {name for name, kind in types.items() if "tuple" in str(kind)}
    assert {name for name in types if hints[name] != types[name]} == lists  # typed as sequences
    shown = {name: entry.default for name, entry in inspect.signature(function).parameters.items()}
    rows = "data" if command is tune_command else "pool"
    assert set(shown) - set(defaults) == {rows, "eval", "on_progress"}
    has = {name: entry.default for name, entry in inspect.signature(command).parameters.items()}
    groups = [PoolSettings, EvalReadSettings, OutputSettings, *([] if command is tune_command else [GivenSettings])]
    others = {field.name for group in groups for field in fields(group)}
    # trains on grown rows, in place of methods
    more = {"against"} if command is compare_command else set()
    assert set(has) == set(defaults) | others | more | {rows, "eval_rows"}
    for name, default in defaults.items():
        assert shown[name] == default, name
        if name not in lists | {"workers", "settings"}:
            assert has[name] == default, name
    assert (has["workers"], defaults["workers"]) == ("auto", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    things = {"red": "apple", "green": "leaf", "blue": "sky"}
    rows = [
        {"text": f"the {thing} is {number}", "label": color} for number in range(40) for color, thing in things.items()
    ]
    odd = {"text": "the apple is 99", "label": "Red", "note": "a label that the pool lacks"}
    for name, part in (("pool", rows[:90]), ("test", [*rows[90:], odd])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*part, {"text": "no label"}]))
    return folder


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_curve_from_the_shell_ends_in_an_answer_and_feeds_a_budget(files, tiny_bert, tmp_path, capsys):
    code = run(
        "curve", files / "pool.jsonl", "--eval", files / "test.jsonl", "--methods", "length", "--sizes", "8,16,32,64",
        "--max-rows", 64, "--seeds", 2, "--grid", "--model", tiny_bert, "--train", "epochs=1", "--target", 0.4,
        "--workers", 1, "--within", 0.4, "--out", tmp_path / "curve", "--no-page", "--json",
    )  # fmt: skip
    output = capsys.readouterr()
    assert code == 0, output.err
    content = json.loads(output.out)
    assert content["methods"]["random"]["enough"]["within"] == 0.4
    assert f"\n{content['answer'].split(' of the ')[0]}" in output.err
    for name, n in (("pool", 91), ("test", 32)):
        assert f"{name}.jsonl: 1 of {n} rows cannot be used and are rejected: 1 x field 'label' is mis" in output.err
    assert "random: " in output.err
    assert "every cell of the grid was run" in output.err
    # before the runs, and in the summary
    unknown = "1 of 31 held-out rows have labels that no training row has, and count as wrong"
    assert output.err.count(f"{unknown} (their loss is left out): 'Red' (1); 'Red' looks like 'red'") == 2
    manifest = json.loads((tmp_path / "curve" / "manifest.json").read_bytes())
    assert content["unknown_labels"] == manifest["unknown_labels"] == {"Red": 1}
    assert manifest["reading"]["eval"] == {
        "kind": "classification",
        "schema": "text-label",
        "columns": {"text": ["text"], "label": ["label"]},
        "not_read": ["note"],
        "summary": "text-label: text=text, label=label; other columns: note",
        "notes": [
            "labels that look alike are read as different classes: 'red' (10) and 'Red' (1); write each class one way"
        ],
    }
    assert manifest["reading"]["pool"]["not_read"] == []
    found = content["methods"]["length"]["enough"]
    assert found["verdict"] == "enough"  # 0.4 of accuracy is more than there is to gain
    assert parse_budget(f"saturation:{tmp_path / 'curve'}", method="length").amount == found["high"]


def test_a_comparison_from_the_shell_ends_in_verdicts(files, tiny_bert, tmp_path, capsys):
    code = run(
        "compare", files / "pool.jsonl", "--eval", files / "test.jsonl", "--methods", "herding", "--budget", "20%",
        "--seeds", 2, "--model", tiny_bert, "--encoder", "static", "--train", "epochs=1", "--workers", 1,
        "--out", tmp_path / "out", "--no-page",
    )  # fmt: skip
    errors = capsys.readouterr().err
    assert code == 0, errors
    verdicts = json.loads((tmp_path / "out" / "comparison.json").read_bytes())["verdicts"]
    assert [entry["method"] for entry in verdicts] == ["herding", "length"]
    for entry in verdicts:
        assert entry["sentence"] in errors
        assert entry["difference"]["low"] <= entry["difference"]["value"] <= entry["difference"]["high"]
        assert entry["p_holm"] >= entry["difference"]["p"]


def test_an_incomplete_comparison_exits_with_75_and_says_so_last(files, tiny_bert, tmp_path, capsys, monkeypatch):
    deadly = tmp_path / "python"
    deadly.write_text("#!/bin/sh\nkill -9 $$\n")
    deadly.chmod(0o755)
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    real = worker_pool.train_and_measure

    def run_out_of_memory(context, work):
        if len(context.data) == 16 and context.seeds == (1,):
            raise MemoryError("no room")
        return real(context, work)

    command = [
        "compare", files / "pool.jsonl", "--eval", files / "test.jsonl", "--methods", "length", "--budget", "8,16",
        "--seeds", 2, "--model", tiny_bert, "--train", "epochs=1", "--workers", 1, "--out", tmp_path / "out",
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(worker_pool, "train_and_measure", run_out_of_memory)
        patched.setattr(worker_pool.sys, "executable", str(deadly))
        assert run(*command) == 75
    *_, last = capsys.readouterr().err.splitlines()
    assert last == (
        "incomplete: 2 runs could not be finished (the worker process was ended by SIGKILL, as when memory runs out); "
        "run the same command again to complete the result"
    )
    assert "This result is incomplete" in (tmp_path / "out" / "report.html").read_text()
    assert run(*command) == 0
    assert "incomplete:" not in capsys.readouterr().err
    assert "This result is incomplete" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sizes", "8"], "at least 3 sizes"),
        (["--sizes", "8,16,9999"], "at most the 90 rows"),
        (["--sizes", "small"], "sizes must be a list of whole numbers of at least 1 or 'auto'"),
        (["--seeds", "1"], "at least 2"),
        (["--max-time", "soon"], "max_time must be a time"),
        (["--train", "epoch=2"], "did you mean 'epochs'"),
        (["--train", "epochs=two"], "epochs must be a number"),
        (
            ["--train", "weight=a,b=1"],
            "got 'weight=a,b=1'; give --train weight=a --train b=1",
        ),
        (["--set", "epochs=2"], "--set: must be METHOD.NAME=VALUE"),
        (["--workers", "many"], "workers must be a whole number of at least 1 or 'auto'"),
        (["--metric", "acuracy"], "did you mean 'accuracy'"),
    ],
)
def test_bad_use_of_curve_is_one_sentence_and_exit_2(files, arguments, words, capsys):
    code = run("curve", files / "pool.jsonl", "--eval", files / "test.jsonl", "--quiet", *arguments)
    errors = capsys.readouterr().err
    assert code == 2
    assert words in errors
    assert errors.strip().count("\n") == 0


def test_overlapping_files_are_refused_with_the_rows_named(files, capsys):
    code = run("curve", files / "pool.jsonl", "--eval", files / "pool.jsonl", "--quiet")
    errors = capsys.readouterr().err
    assert code == 2
    assert "pool.jsonl:" in errors
    assert "--overlap drop" in errors


def test_texts_become_values():
    assert parse_seconds("90s") == 90
    assert parse_seconds("1.5h") == 5400
    assert parse_seconds("60") == parse_seconds(60) == 60
    assert build_settings(CurveSettings, "curve", {"sizes": "1,20"}).sizes == (1, 20)
    assert parse_method_settings(["deft-ucs.easy-share=0.3"]) == {"deft-ucs": {"easy_share": "0.3"}}
    settings = parse_train_settings(["epochs=2", "dora=true", "lora_rank=4", "lora_targets=q,v", "schedule=linear"])
    assert (settings.epochs, settings.dora, settings.lora_rank, settings.lora_targets, settings.schedule) == (
        2.0,
        True,
        4,
        ("q", "v"),
        "linear",
    )
    with pytest.raises(SettingsError, match="true or false"):
        parse_train_settings(["dora=perhaps"])


@pytest.mark.parametrize("content", [None, "{}", '{"methods": {"random": {"enough": null}}}'])
def test_a_budget_from_a_folder_without_an_answer_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "saturation.json").write_text(content)
    with pytest.raises(InputError, match="budget"):
        parse_budget(f"saturation:{tmp_path}")


def test_the_columns_of_a_curve_are_apart_however_long_their_names():
    point = {"n_rows": 120, "value": 0.5, "stderr": 0.01, "n_seeds": 2}
    methods = {name: {"points": [point]} for name in ("random, model tiny", "facility-location, model minilm")}
    title, line = _format_points({"metric": "accuracy", "methods": methods})
    assert "  facility-location, model minilm" in title
    assert len(title) == len(line)
