"""Dry runs of the commands that compute features and choose nothing."""

import json

import pytest

from thresher.cli.main import main
from thresher.dataset import load
from thresher.features.table import plan_score
from thresher.models.settings import ModelSettings

ROWS = [{"text": f"row {i} of a pool " * (1 + i % 5), "label": f"class {i % 3}"} for i in range(60)]


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_each_feature_is_estimated_for_all_rows_and_stored_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    plan = plan_score(load(ROWS), ["length", "embedding", "number:weight"], ModelSettings(encoder="static"))
    assert plan.n_rows == 60
    assert [stage.n for stage in plan.stages] == [60, 60]
    assert plan.seconds == sum(stage.seconds for stage in plan.stages)
    assert plan.disk_bytes >= 60 * 256 * 4  # of the vectors
    assert str(plan).startswith("60 rows\n")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_score_and_clean_say_what_they_would_take_and_write_nothing(pool, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["score", str(pool), "--features", "length", "--dry-run"]) == 0
    assert "total: " in capsys.readouterr().out
    call = [
        "curate",
        "clean",
        str(pool),
        "--rules",
        "semantic-duplicates",
        "--encoder",
        "static",
        "--dry-run",
        "--json",
    ]
    assert main([*call, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["n_rows"] == 60
    assert [stage["n"] for stage in plan["stages"]] == [60]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cleaning_without_a_folder_is_refused_before_rows_are_read(capsys):
    assert main(["curate", "clean", "nowhere.jsonl"]) == 2
    assert "give --out, or --dry-run" in capsys.readouterr().err
