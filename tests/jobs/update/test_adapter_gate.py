"""A snapshot whose adapter is worse than the published one's is not published."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thresher.cli.curate_job import _summarize
from thresher.dataset import load
from thresher.errors import SettingsError
from thresher.jobs.update import adapter_gate
from thresher.jobs.update.adapter_gate import get_gate_cache
from thresher.reporting.pages.snapshot import _write_alarm

THINGS = {"red": "apple", "green": "leaf", "blue": "sky"}
SWAPPED = {"red": "green", "green": "blue", "blue": "red"}


def make_rows(seed, n=60, *, is_wrong=False):
    rng = np.random.default_rng(seed)
    rows = []
    for number, color in enumerate(rng.choice(list(THINGS), n)):
        label = SWAPPED[str(color)] if is_wrong else str(color)
        rows.append(
            {"text": f"the {THINGS[str(color)]} is {color} {seed} {number}", "label": label, "part": f"p{seed}"}
        )
    return rows


@pytest.fixture
def gated(kit, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    held_out = kit.root / "eval.jsonl"
    kit.root.mkdir(exist_ok=True)
    held_out.write_text("".join(json.dumps(row) + "\n" for row in [*make_rows(7), *make_rows(8)]))

    def write(steps=8):
        train = f'[train]\nmodel = "{tiny_bert}"\nseeds = 2\nslices = "part"\n'
        train += f"settings = {{max_steps = {steps}, batch_size = 8, max_length = 16}}\n"
        kit.write(select="total = 400", more=train)
        kit.file.write_text('eval = ["eval.jsonl"]\n' + kit.file.read_text())

    write()
    return kit, write


def test_a_worse_snapshot_is_not_published_and_an_equal_one_is(gated):
    kit, write = gated
    kit.add("a", make_rows(1))
    assert kit.run().report["train"] == {"verdict": "first", "tests": []}
    poison = kit.add("b", make_rows(2, 200, is_wrong=True))
    worse = kit.run()
    assert worse.outcome == "gate"
    assert worse.report["train"]["verdict"] == "worse"
    assert len(kit.table()) == 60
    first, *slices = worse.report["train"]["tests"]
    assert (first["rows"], first["n_rows"], first["n_seeds"]) == ("all rows", 120, 2)
    assert first["high"] < 0
    assert [each["rows"] for each in slices] == ["slice p7", "slice p8"]
    assert any("must not be worse" in said and "got all rows: worse by" in said for said in kit.warnings())
    (alarm, *_) = worse.report["alarms"]
    assert alarm["what"].startswith("all rows: worse by ")
    assert alarm["what"].endswith("(accuracy, n = 120, 2 seeds)")
    said = _summarize(worse).splitlines()
    assert said[0] == "nothing published: a gate failed (exit 4)"
    assert any(line.strip().endswith("rows would be in the snapshot: 200 added, 0 removed") for line in said)
    assert any(line.startswith("  fail: train: all rows: worse by ") for line in said)
    assert "compared with the one before, all rows: worse by " in _write_alarm(alarm)
    poison.unlink()
    kit.add("c", make_rows(3))
    equal = kit.run()
    assert equal.outcome == "done"
    assert equal.report["train"]["verdict"] == "not clearly worse"
    assert len(kit.table()) == 120
    # two seeds for each of three sets of rows, which are listed and make room
    assert get_gate_cache().size()[0] == 6
    assert get_gate_cache().prune(max_bytes=0) > 0
    assert get_gate_cache().size() == (0, 0)
    write(steps=0)
    with pytest.raises(SettingsError, match=r"max_steps"):
        kit.run()


def test_another_base_in_the_same_folder_is_trained_anew(tiny_bert, tmp_path, monkeypatch):
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    keys = []
    cache = SimpleNamespace(make=lambda key, _: keys.append(key) or Path(key))
    monkeypatch.setattr(adapter_gate, "get_gate_cache", lambda: cache)
    job = SimpleNamespace(resolve_model=str, settings=SimpleNamespace(seed=0))
    section = SimpleNamespace(settings={"max_steps": 1}, model=base, seeds=2)
    log = SimpleNamespace(send=lambda *_: None)
    for change in ({}, {}, {"_name_or_path": "another"}):
        config = base / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
        adapter_gate._train(job, section, load(make_rows(1, 8)), load(make_rows(2, 8)), log)
    assert keys[:2] == keys[2:4]
    assert len(set(keys)) == 4


def test_the_gate_needs_rows_to_measure_on(kit, rows):
    kit.write(more="[train]\n")
    kit.add("a", rows(5, 1))
    with pytest.raises(SettingsError, match=r"held-out rows, found none; give eval"):
        kit.run()
