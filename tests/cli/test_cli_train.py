"""The `train` command: its options, and what it prints."""

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from thresher.cli.main import main
from thresher.cli.train import train as command
from thresher.dataset import load
from thresher.dataset.settings import EvalReadSettings, PoolSettings
from thresher.experiments.experts.settings import ExpertSettings
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train


def test_train_command_has_the_names_and_defaults_of_the_function_and_of_the_settings():
    function = {name: entry.default for name, entry in inspect.signature(train).parameters.items()}
    defaults = {name: entry.default for name, entry in inspect.signature(load).parameters.items()}
    defaults |= function | {field.name: field.default for field in fields(TrainSettings)}
    defaults |= {field.name: field.default for group in (PoolSettings, EvalReadSettings) for field in fields(group)}
    defaults |= {field.name: field.default for field in fields(ExpertSettings)} | {"seeds": 1, "seed": 0}
    defaults |= {"data": None, "k": None}  # --source may stand for rows
    has = inspect.signature(command).parameters
    assert {field.name for field in fields(TrainSettings)} <= set(has)
    assert set(function) - {"settings", "on_event"} <= set(has)
    for name, entry in has.items():
        if name not in {"as_json", "quiet", "dry_run", "push_to_hub"}:
            expected = defaults[name]
            # lists are written with commas
            assert entry.default == (",".join(map(str, expected)) if isinstance(expected, tuple) else expected), name


def test_help_names_the_defaults_that_follow_from_the_task():
    from typing import get_type_hints

    from thresher.trainer.settings import BY_TASK

    hints = get_type_hints(command, include_extras=True)
    for name, formatted in (("epochs", "{:g}"), ("max_length", "{:g}"), ("batch_size", "{:g}")):
        described = set(re.findall(r"[0-9]+", hints[name].__metadata__[0].help.split("default:")[1]))
        assert described == {formatted.format(chosen[name]) for chosen in BY_TASK.values()}, name


def test_rows_that_are_cut_or_left_out_are_told(tiny_llama, tmp_path, capsys):
    from thresher.cli.main import main

    short = [{"prompt": f"add {n}", "completion": "5"} for n in range(6)]
    cut, lost = {"prompt": "x", "completion": "the " * 50}, {"prompt": "the " * 90, "completion": "5"}
    for name, rows in (
        ("rows", [*short, cut, lost]),
        ("eval", [{"prompt": "y", "completion": "5"}, dict(cut, prompt="z")]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["train", tmp_path / "rows.jsonl", "--model", tiny_llama, "--out", tmp_path / "a"]
    arguments += ["--eval", tmp_path / "eval.jsonl", "--max-steps", 1, "--max-length", 40, "--eval-generations", 1]
    assert main([*map(str, arguments), "--lora-targets", "q_proj, v_proj", "--max-new-tokens", "500"]) == 0
    output = capsys.readouterr().err
    assert "1 row left out: nothing of the response is within max_length" in output
    assert re.search(r"\n  1 row truncated at max_length \(\d+ tokens?\)", output)
    assert re.search(r"\n  1 held-out row truncated at max_length \(\d+ tokens?\)", output)
    assert "1 held-out prompt was truncated at the start, to leave room for an answer" in output
    targets = json.loads((tmp_path / "a" / "adapter_config.json").read_bytes())["target_modules"]
    assert targets == ["q_proj", "v_proj"]


@pytest.mark.slow
def test_a_folder_that_is_taken_is_one_sentence_from_every_process(tiny_bert, color_rows, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in color_rows))
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
    assert b"internal error" not in done.stderr


def test_labels_that_training_does_not_know_are_told_with_what_becomes_of_them(tiny_bert, color_rows, tmp_path, capsys):
    eval_rows = [*color_rows[:6], *({"text": f"a gray {n}", "label": "gray|ish"} for n in range(3))]
    for name, rows in (("rows", color_rows), ("eval", [{**row, "n": i} for i, row in enumerate(eval_rows)])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = ["train", tmp_path / "rows.jsonl", "--eval", tmp_path / "eval.jsonl", "--out", tmp_path / "a"]
    assert main([*map(str, train), "--model", str(tiny_bert), "--max-steps", "1"]) == 0
    output, sentence = capsys.readouterr().err, "3 of 9 held-out rows have labels that no training row has"
    assert f"{sentence}, and count as wrong (their loss is left out): 'gray|ish' (3)" in output
    assert "eval: 9 rows read (classification; text-label: text=text, label=label; other columns: n)" in output
    metrics, manifest = (json.loads((tmp_path / "a" / f"{name}.json").read_bytes()) for name in ("metrics", "manifest"))
    assert metrics["counts"]["eval"]["unknown_labels"] == {"gray|ish": 3}
    assert manifest["reading"]["eval"]["not_read"] == ["n"]
    assert manifest["reading"]["data"]["columns"] == {"text": ["text"], "label": ["label"]}
    card = (tmp_path / "a" / "README.md").read_text()
    assert "| held out | classification | text-label: text=text, label=label; other columns: n |" in card
    assert sentence in card


def test_what_was_read_is_said_and_options_of_reading_do_not_fit_a_subset(tmp_path, capsys):
    import thresher as th

    rows = [{"text": f"row {i}", "label": "ab"[i % 2], "kind": "x"} for i in range(12)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    th.select(str(path), "random", budget=6, out=tmp_path / "chosen")
    assert main(["train", str(tmp_path / "chosen"), "--schema", "text-label", "--out", str(tmp_path / "a")]) == 2
    assert "schema: the rows of a subset are read as they were selected" in capsys.readouterr().err
    words = ["train", str(path), "--max-steps", "1", "--out", str(tmp_path / "b"), "--model", str(tmp_path / "none")]
    assert main(words) == 2  # there is no such model, which is looked for after the rows were read
    read = "12 rows read (classification; text-label: text=text, label=label; other columns: kind)"
    assert f"{path}: {read}" in capsys.readouterr().err
