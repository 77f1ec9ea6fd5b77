"""The page of a snapshot: its alarm first, and the rows of each night that is kept."""

import json
import shutil

import pytest

import thresher as th
from thresher.artifacts.manifest import Manifest
from thresher.reporting.pages.snapshot import build_snapshot_page

JOB = """
name = "listings"
[[sources]]
files = ["incoming/*.jsonl"]
[[steps]]
rule = "exact-duplicates"
[gates]
lengths = { warn = 0.001 }
[output]
folder = "pool"
"""


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """Return the snapshots of three nights, the last of longer rows."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "incoming").mkdir()
    (folder / "job.toml").write_text(JOB)
    snapshots = []
    for night, (start, n_words) in enumerate([(0, 4), (30, 4), (60, 20)]):
        rows = [
            {"text": " ".join(f"w{i}x{word}" for word in range(n_words)), "label": "a"}
            for i in range(start, start + 40)
        ]
        (folder / f"incoming/{night}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        snapshots.append(th.run_job(folder / "job.toml").snapshot)
    return snapshots


def build(folder):
    return build_snapshot_page(folder, Manifest.read(folder))


def test_the_page_begins_with_its_alarm(nights):
    first, last = build(nights[0]), build(nights[2])
    assert first.answer.startswith("The pool has 40 rows")
    assert last.answer.startswith("Check this snapshot before you train on it: the drift of lengths is ")
    assert last.answer.endswith("beyond its limit of 0.001.")
    assert last.more[0].startswith("The pool has ")


def test_the_chart_counts_the_rows_of_each_night(nights):
    assert build(nights[0]).figures() == []
    (figure,) = build(nights[2]).figures()
    assert [row[0] for row in figure.table.rows] == ["1", "2", "3"]
    assert [row[2:] for row in figure.table.rows][:2] == [("40", "40", "0"), ("70", "30", "0")]
    assert [row[0] for row in build(nights[1]).figures()[0].table.rows] == ["1", "2"]
    assert th.report(nights[2]).name == "report.html"


def test_what_lies_beside_and_is_no_snapshot_of_the_job_is_not_counted(nights, tmp_path):
    for name in ("v000002", "v000003"):
        shutil.copytree(nights[1] if name == "v000002" else nights[2], tmp_path / name)
    (tmp_path / "v000001").mkdir()
    content = json.loads((tmp_path / "v000002/manifest.json").read_text())
    (figure,) = build(tmp_path / "v000003").figures()
    assert [row[0] for row in figure.table.rows] == ["2", "3"]
    (tmp_path / "v000002/manifest.json").write_text(json.dumps({**content, "job": "another"}))
    assert build(tmp_path / "v000003").figures() == []
