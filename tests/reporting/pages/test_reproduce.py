"""The command on a page that writes its folder again."""

from __future__ import annotations

import shlex
from pathlib import Path

from thresher.artifacts.manifest import Manifest
from thresher.cli.main import main
from thresher.reporting.pages.reproduce import build_command


def test_the_command_of_a_subset_makes_the_same_rows_again(pages, tmp_path, capsys):
    folder, page = pages["subset"]
    (code,) = [e["text"] for e in page.all("code")]
    words = shlex.split(code)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main([*words, "--quiet"]) == 0
    assert (tmp_path / "again" / "subset.jsonl").read_bytes() == (folder / "subset.jsonl").read_bytes()


def test_the_command_of_a_subset_names_the_models_and_how_vectors_are_stored(folders):
    content = Manifest.read(folders["subset"]).content
    features = {
        "embedding": {"encoder": "minilm", "storage_dtype": "float16", "fingerprint": "0"},
        "loss": {"model": "an/other", "fingerprint": "1"},
        "reference_loss": {"model": "trained", "fingerprint": "2"},
    }
    words = shlex.split(build_command({**content, "features": features}, Path("out")))
    start = words.index("--encoder")
    assert words[start : start + 6] == ["--encoder", "minilm", "--embedding-dtype", "float16", "--model", "an/other"]
    assert "trained" not in words


def test_the_command_of_a_subset_names_existing_and_target_rows(folders):
    content = Manifest.read(folders["subset"]).content
    beside = {"existing": ["/d/old.jsonl"], "target": ["/t/a.jsonl", "/t/b.jsonl"]}
    words = shlex.split(build_command({**content, "run": {**content["run"], **beside}}, Path("out")))
    assert words[words.index("--existing") + 1] == "/d/old.jsonl"
    assert words[words.index("--target") + 1] == "/t"


def test_the_command_of_a_curve_names_its_options_and_changed_settings(folders):
    content = Manifest.read(folders["curve"]).content
    content = {**content, "asked": {"plan": {**content["asked"]["plan"], "targets": [0.8, 0.9]}, "slices": ["source"]}}
    words = shlex.split(build_command(content, Path("out dir")))
    assert words[:5] == ["thresher", "curve", content["run"]["inputs"][0], "--eval", "EVAL"]
    options = list(zip(words[5::2], words[6::2], strict=True))
    assert options == [
        ("--model", "embedded"),
        ("--slice", "source"),
        ("--methods", "random,facility-location,length"),
        ("--sizes", "160,320,640,1280,2560"),
        ("--seeds", "4"),
        ("--within", "1%"),
        ("--target", "0.8"),
        ("--target", "0.9"),
        ("--train", "learning_rate=0.001"),
        ("--train", "epochs=3.0"),
        ("--out", "out dir"),
    ]


def test_a_command_in_the_manifest_is_shown_unchanged(folders):
    content = Manifest.read(folders["curve"]).content
    content = {**content, "run": {"command": ["thresher", "curve", "a b.jsonl"]}}
    assert build_command(content, Path("out")) == "thresher curve 'a b.jsonl'"


def test_the_command_of_an_experiment_names_method_settings_columns_and_overlap(folders):
    content = dict(Manifest.read(folders["comparison"]).content)
    content |= {
        "model": {"name": "sentence-transformers/all-MiniLM-L6-v2"},
        "method_settings": {"deft-ucs": {"easy_share": 0.3}},
        "overlap": "drop",
        "id_column": "key",
        "schema": {"name": "mapped", "columns": {"text": ["a"], "label": ["b"]}},
        "run": {"inputs": ["rows/a.jsonl", "rows/b.jsonl"], "eval": "test.jsonl"},
    }
    words = shlex.split(build_command(content, Path("out")))
    assert words[2:5] == ["rows", "--eval", "test.jsonl"]
    assert "--model" not in words  # it comes with the package
    pairs = list(zip(words, words[1:], strict=False))
    assert ("--set", "deft-ucs.easy_share=0.3") in pairs
    assert ("--overlap", "drop") in pairs
    assert ("--map", "text=a,label=b") in pairs
    assert ("--id-column", "key") in pairs


def test_the_command_of_advice_leaves_the_general_rows_out_where_it_did(folders):
    """Its default measures them; that of experiments, whose manifest it has, does not."""
    content = {**Manifest.read(folders["curve"]).content, "kind": "advice"}
    words = {general: build_command({**content, "untouched": about}, Path("out")) for general, about in (
        ("none", {}), ("auto", {"general": "auto"}), ("mine.jsonl", {"general": "mine.jsonl"})
    )}  # fmt: skip
    assert all(f"--general {general}" in line for general, line in words.items())
    assert "--general" not in build_command({**content, "kind": "curve", "untouched": {}}, Path("out"))
