"""One file tells any command what to do: `--config`, KEY=VALUE, and names that other tools use."""

from __future__ import annotations

import json
import tomllib

import pytest

import thresher as th
from thresher.cli.command import list_all_commands
from thresher.cli.commands import build_app
from thresher.cli.main import main
from thresher.cli.spellings import OTHER_NAMES


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {i}", "label": str(i % 2)}) + "\n" for i in range(20)))
    return path


def _kept(folder):
    return json.loads((folder / "manifest.json").read_text())["counts"]["kept"]


CONFIGS = {
    "flat.toml": 'method = "random"\nbudget = 6\n',
    "table.toml": 'seed = 0\n[select]\nmethod = "random"\nbudget = "6"\n[train]\nlr = 1e-3\n[curate.clean]\nseed = 1\n',
    "run.yaml": "select:\n  method: random\n  budget: 30%\n",
    "run.json": '{"method": "random", "budget": 0.3}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_each_format_chooses_the_same_rows(name, tmp_path, pool, capsys):
    (tmp_path / name).write_text(CONFIGS[name])
    assert main(["select", str(pool), "--config", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 0
    assert main(["select", str(pool), "--method", "random", "--budget", "6", "--out", str(tmp_path / "plain")]) == 0
    files = [(tmp_path / folder / "subset.jsonl").read_bytes() for folder in ("out", "plain")]
    assert files[0] == files[1]
    assert not (tmp_path / "plain" / "config.toml").exists()


def test_the_command_line_comes_before_pairs_and_pairs_before_the_file(tmp_path, pool):
    config = tmp_path / "run.toml"
    config.write_text('method = "random"\nbudget = 3\nseed = 1\n')
    call = ["select", str(pool), f"--config={config}"]
    assert main([*call, "--out", str(tmp_path / "a"), "budget=4"]) == 0
    assert main([*call, "--out", str(tmp_path / "b"), "budget=4", "--budget", "5"]) == 0
    assert (_kept(tmp_path / "a"), _kept(tmp_path / "b")) == (4, 5)


def test_the_resolved_file_beside_the_result_repeats_it(tmp_path, pool):
    out = tmp_path / "out"
    assert main(["select", str(pool), "method=random", "budget=7", "seed=3", "--out", str(out)]) == 0
    resolved = tomllib.loads((out / "config.toml").read_text())
    assert resolved["budget"] == "7"
    assert resolved["seed"] == 3
    assert resolved["order"] == "file"
    assert main(["select", "--config", str(out / "config.toml"), "--out", str(tmp_path / "again")]) == 0
    assert (out / "subset.jsonl").read_bytes() == (tmp_path / "again" / "subset.jsonl").read_bytes()


def test_a_result_at_an_address_has_its_configuration_beside_it(tmp_path, pool):
    pytest.importorskip("fsspec")
    config = tmp_path / "run.toml"
    config.write_text('method = "random"\nbudget = 3\nout = "memory://configured/chosen"\n')
    assert main(["select", str(pool), "--config", str(config)]) == 0
    assert len(th.open("memory://configured/chosen")) == 3
    kept = th.open("memory://configured/chosen").path / "config.toml"
    assert tomllib.loads(kept.read_text())["out"] == "memory://configured/chosen"
    config.write_text('method = "random"\nbudget = 3\nout = "abfs://bucket/chosen"\n')
    assert main(["select", str(pool), "--config", str(config)]) == 2


def test_a_table_of_settings_is_given_pair_by_pair(tmp_path, pool):
    config = tmp_path / "clean.toml"
    config.write_text(
        '[curate.clean]\nrules = ["near-duplicates"]\n[curate.clean.set]\nnear-duplicates.threshold = 0.9\n'
    )
    assert main(["curate", "clean", str(pool), "--config", str(config), "--out", str(tmp_path / "out")]) == 0
    rules = json.loads((tmp_path / "out" / "manifest.json").read_text())["rules"]
    assert rules[0]["settings"]["threshold"] == 0.9


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("buget = 3", "unknown option 'buget' of 'thresher select'; did you mean 'budget'?"),
        ("[select]\nmetod = 'random'", "unknown option 'metod' of 'thresher select'; did you mean 'method'?"),
        ("[selct]\nbudget = 3", "unknown option 'selct'"),
        ("[curate]\nclaen.rules = 'x'", "found 'claen'; did you mean 'clean'?"),
        ("budget = ", "must be valid TOML"),
        ("method = 'random'\nbudget = 3\nforce = 'maybe'", "force: must be true or false, got 'maybe'"),
        ("method = 'random'\nbudget = 3\nseed = 'three'", "must be a whole number"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(content, sentence, tmp_path, pool, capsys):
    config = tmp_path / "run.toml"
    config.write_text(content)
    assert main(["select", str(pool), "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert str(config) in told
    assert not (tmp_path / "out").exists()


def test_names_of_other_tools_are_read_and_not_shown(tmp_path, pool, capsys):
    out = tmp_path / "out"
    assert (
        main(["select", "--dataset", str(pool), "--method", "random", "--budget", "4", "--output_dir", str(out)]) == 0
    )
    assert _kept(out) == 4
    assert main(["select", "-h"]) == 0
    shown = capsys.readouterr().out
    assert "--out" in shown
    assert "output_dir" not in shown
    assert "--dataset" not in shown


TYPED = [
    ("train", "model_name_or_path", "model"),
    ("train", "output_dir", "out"),
    ("train", "lr", "learning_rate"),
    ("train", "learning_rate", "learning_rate"),
    ("train", "num-train-epochs", "epochs"),
    ("train", "per_device_train_batch_size", "batch_size"),
    ("train", "dataset", "data"),
    ("curve", "dataset", "pool"),
    ("curve", "eval_file", "eval_rows"),
    ("score", "output_dir", "out"),
]


@pytest.mark.parametrize(("verb", "word", "name"), TYPED)
def test_a_word_of_another_tool_stands_for_a_parameter(verb, word, name):
    assert _get_commands()[verb].find_parameter(word) == name


def test_no_word_of_another_tool_hides_an_option_of_ours():
    names = {param.name for command in _get_commands().values() for param in command.params}
    assert not names & set(OTHER_NAMES)
    targets = {target for targets in OTHER_NAMES.values() for target in targets}
    assert targets <= names


def test_at_most_15_verbs_are_listed_each_under_its_question():
    from typer.main import get_command

    commands = get_command(build_app()).commands
    shown = [command for command in commands.values() if not command.hidden]
    assert len(shown) <= 15
    assert all(command.rich_help_panel for command in shown)
    # the others are named by the help of one that is listed
    listed = " ".join(command.help or "" for command in shown) + " ".join(
        param.help or "" for command in shown for param in command.params
    )
    assert all(f"thresher {name}" in listed for name in ("score", "why", "soup", "methods"))


def _get_commands():
    from typer.main import get_command

    return list_all_commands(get_command(build_app()))
