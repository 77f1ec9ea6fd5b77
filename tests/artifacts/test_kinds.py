"""Folders of one kind: another kind is refused in one sentence by whatever reads it."""

import importlib

import pytest

import thresher as th
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.errors import ManifestError
from thresher.notebook.results import _READERS


@pytest.fixture
def other(tmp_path):
    """Return the folder of a kind that nobody reads."""
    content = {"format": FORMAT, "kind": "nobody's", "identity": "1", "run": {}}
    (tmp_path / "manifest.json").write_bytes(Manifest(content).to_sealed_json())
    return tmp_path


@pytest.mark.parametrize("where", sorted({where for where in _READERS.values() if not where.endswith(":load")}))
def test_a_folder_of_another_kind_is_refused(where, other):
    module, _, names = where.partition(":")
    read = importlib.import_module(module)
    for name in names.split("."):
        read = getattr(read, name)
    with pytest.raises(ManifestError, match=r": must be (a|an|the)? ?[a-z' ]+, found 'nobody's'"):
        read(other)


def test_a_changed_file_of_a_labeled_folder_is_named(tmp_path):
    rows = [{"text": f"t{i}", "a": "xy"[i % 2]} for i in range(4)]
    th.join_labels(rows, ["a"], out=tmp_path / "out")
    path = tmp_path / "out/rows.jsonl"
    path.write_text(path.read_text().replace("t1", "t9"))
    with pytest.raises(ManifestError, match="rows.jsonl"):
        th.open(tmp_path / "out")
