"""What `correct --dry-run` says: every answer and every verdict, from a few of them."""

import json

import pytest

from thresher.cli.main import main
from thresher.curation.correction.plan import plan_correction


@pytest.mark.parametrize("options", [["--judge", "tiny"], ["--judge", "http://127.0.0.1:9/v1#judge"]])
def test_a_dry_run_times_answers_and_verdicts_and_asks_no_server(tmp_path, capsys, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    rows = [{"instruction": f"say {number}", "output": "ok"} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["correct", "rows.jsonl", "--model", "tiny", *options, "--max-new-tokens", "60"]
    assert main([*words, "--dry-run", "--json"]) == 0, capsys.readouterr().err
    plan = json.loads(capsys.readouterr().out)
    candidates, *others = plan["stages"]
    assert (plan["n_rows"], candidates["stage"], candidates["n"]) == (20, "correct: candidates", 20)
    assert candidates["seconds"] > 0
    [verdicts] = others
    assert verdicts["n"] == 40
    assert (verdicts["seconds"] is None) == options[1].startswith("http")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["rows.jsonl"]


def test_a_dry_run_times_answers_and_meaning():
    rows = [{"prompt": f"say {number}", "completion": "ok"} for number in range(20)]
    plan = plan_correction(rows, model="tiny", abstain=True, n_samples=2, max_new_tokens=4, encoder="static")
    assert plan.stages[0].stage == "correct: sampled answers"
    assert plan.seconds > 0
