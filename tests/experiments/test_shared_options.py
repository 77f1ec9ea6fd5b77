"""The options that many commands share: where each is, and that it says the same everywhere."""

import json
from pathlib import Path

import pytest

from thresher.cli.command import list_all_commands
from thresher.cli.commands import build_app
from thresher.cli.main import main

READS = (  # rows, from anywhere
    "advise", "curve", "compare", "tune", "mix", "base rank", "base sources", "base transfer", "select", "score",
    "train", "why", "correct", "grow", "curate clean", "label ask", "label join",
)  # fmt: skip
CELLS = ("advise", "curve", "compare", "tune", "mix", "base rank", "base sources", "base transfer")
LONG = (*(name for name in READS if name != "label join"), "curate run", "label refine", "soup")
WHERE = {
    "device": (*(name for name in READS if name != "label join"), "try", "label refine", "novelty", "soup"),
    "split": (*READS, "label refine"),
    "dry_run": LONG,
    "workers": CELLS,
    "engine": (*CELLS, "select"),
}
# what `--dry-run` and `--engine` say differs by what is estimated, and by what runs on a cluster
SAME_HELP = ("device", "split", "workers")


@pytest.fixture(scope="module")
def commands():
    from typer.main import get_command

    return list_all_commands(get_command(build_app()))


def test_no_help_of_an_option_loses_words_to_markup(commands):
    """rich takes [words] for styles: `[[methods]]` was printed as `[]`."""
    from rich.text import Text

    helps = {text for command in commands.values() for each in command.params if (text := each.help)}
    shown = {Text.from_markup(text).plain for text in helps}
    assert shown == {text.replace("\\[", "[") for text in helps}
    assert any("[[methods]]" in text for text in shown)


@pytest.mark.parametrize("option", WHERE)
def test_an_option_is_where_it_makes_sense_and_says_the_same(commands, option):
    found = {name: param for name, command in commands.items() for param in command.params if param.name == option}
    assert sorted(found) == sorted(WHERE[option])
    assert {tuple(param.opts) for param in found.values()} == {(f"--{option.replace('_', '-')}",)}
    if option in SAME_HELP:
        assert len({param.help for param in found.values()}) == 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    things = {"red": "apple", "green": "leaf", "blue": "sky"}
    rows = [
        {"text": f"the {thing} is {number}", "label": color, "from": number % 2}
        for number in range(30)
        for color, thing in things.items()
    ]
    parts = {"pool": rows[:72], "test": rows[72:], "more": [{**row, "text": f"look: {row['text']}"} for row in rows]}
    parts["open"] = [{**row, "label": None} if at > 20 else row for at, row in enumerate(rows[:72])]
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


QUICK = ["--train", "max_steps=2", "--train", "batch_size=4"]


def list_dry_runs(rows, model):
    """Return a small call of each command that trains classifiers, with the parts of its plan."""
    pool, test, more = (str(rows / f"{name}.jsonl") for name in ("pool", "test", "more"))
    sides, trained = [pool, "--eval", test], ["--model", model, *QUICK]
    return {
        "advise": (
            [*sides, *trained],
            [
                "the untouched model", "curve, first cells", "curve, further cells, at most",
                "adapter, and one on random rows, at most",
            ],
        ),
        "mix": ([*sides, *trained, "--by", "from", "--rows", "30", "--mixes", "6"], ["mixes", "best and equal shares"]),
        "base sources": (
            [*sides, "--candidate", more, *trained],
            ["your rows alone", "mixes with 1 data set", "the other data first"],
        ),
        "base rank": (
            [*sides, "--models", f"{model},static", *QUICK],
            [f"{model} reads 72 rows"],
        ),
        "base transfer": (
            [*sides, "--models", f"{model},minilm", "--methods", "length", "--budget", "8", *QUICK],
            [f"{name}, {part}" for name in (model, "minilm") for part in ("the untouched model", "8 rows, 2 methods")],
        ),
        "train": (
            [*sides, "--model", model, "--max-steps", "4", "--batch-size", "4", "--experts", "2"],
            ["common part", "experts", "random clusters", "one adapter"],
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["advise", "mix", "base sources", "base rank", "base transfer", "train"])
def test_a_dry_run_plans_the_cells_of_a_command_and_writes_nothing(
    files, tiny_bert, own_cache, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.chdir(tmp_path)
    words, parts = list_dry_runs(files, str(tiny_bert))[name]
    assert main([*name.split(), *words, "--dry-run", "--json", "--device", "cpu"]) == 0, capsys.readouterr().err
    plan = json.loads(capsys.readouterr().out)
    assert [part["name"] for part in plan["parts"]] == parts
    assert plan["seconds"] > 0
    assert not [path for path in tmp_path.iterdir() if path != own_cache]
    assert not list(Path(own_cache).rglob("outcomes.parquet"))


def test_labels_are_planned_without_a_choice(files, own_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [str(files / "open.jsonl"), "--encoder", "static", "--dry-run"]
    assert main(["label", "ask", *words]) == 0
    assert "entries" in capsys.readouterr().out
    assert main(["label", "ask", *words, "--annotator", "http://127.0.0.1:9/v1#m", "--json"]) == 0
    last = json.loads(capsys.readouterr().out)["stages"][-1]
    assert (last["n"], last["seconds"]) == (50, None)
    assert not [path for path in tmp_path.iterdir() if path != own_cache]


@pytest.mark.parametrize("name", ["train", "tune", "advise", "mix", "base sources", "base rank"])
def test_a_device_that_is_not_there_is_refused_everywhere(files, tiny_bert, own_cache, tmp_path, capsys, name):
    words, _ = list_dry_runs(files, str(tiny_bert)).get(
        name, ([str(files / "pool.jsonl"), "--eval", str(files / "test.jsonl")], [])
    )
    out = ["--out", str(tmp_path / "out")]
    assert main([*name.split(), *words, *out, "--device", "cuda:7"]) == 2
    assert "device: 'cuda:7' needs a CUDA GPU of that number, found" in capsys.readouterr().err
    assert main([*name.split(), *words, *out, "--device", "gpu"]) == 2
    assert "device: must be cpu, cuda, cuda:1 or mps, got 'gpu'" in capsys.readouterr().err


def test_two_devices_in_one_call_are_refused(files, tmp_path, capsys):
    words = [str(files / "pool.jsonl"), "--eval", str(files / "test.jsonl"), "--out", str(tmp_path / "out")]
    assert main(["curve", *words, "--device", "cpu", "--train", "device=cuda"]) == 2
    assert "device is 'cpu', and 'cuda' in train; give one of them" in capsys.readouterr().err
