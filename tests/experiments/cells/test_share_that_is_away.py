"""A share that is away says nothing of what lies on it: nothing is deleted, and the run ends."""

import errno
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from thresher.artifacts.folder import OutputFolder
from thresher.cache.feature_cache import FeatureCache
from thresher.errors import find_exit_code
from thresher.experiments.cells.cache import CellCache

KEY = "a" * 64


@pytest.fixture
def cells(tmp_path):
    cells = CellCache(tmp_path / "cache")
    cells.load_or_run(KEY, lambda _: (pl.DataFrame({"row_id": ["a"], "loss": [1.5]}), {"seconds": 1}))
    return cells


@pytest.mark.parametrize("name", ["manifest.json", "outcomes.parquet"])
@pytest.mark.parametrize(("number", "is_kept"), [("EIO", True), ("ESTALE", True), ("EACCES", False)])
def test_a_finished_cell_is_kept_while_it_cannot_be_read(cells, name, number, is_kept, monkeypatch):
    read, opened = Path.read_bytes, Path.open

    def refuse(path, call):
        if path.name == name:
            raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)), str(path))
        return call()

    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path, lambda: read(path)))
    monkeypatch.setattr(Path, "open", lambda path, *a, **b: refuse(path, lambda: opened(path, *a, **b)))
    if is_kept:
        with pytest.raises(OSError, match=name) as caught:
            cells.load(KEY)
        assert find_exit_code(caught.value) == 75
    else:
        assert cells.load(KEY) is None
    monkeypatch.undo()
    assert (cells.load(KEY) is not None) == is_kept


def test_a_finished_result_is_not_taken_for_another_while_it_cannot_be_read(tmp_path, monkeypatch):
    with OutputFolder(tmp_path / "out", identity="a") as folder:
        folder.publish_files(lambda work: (work / "manifest.json").write_text('{"identity": "a"}'))

    def refuse(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        with pytest.raises(OSError, match="manifest") as caught, OutputFolder(tmp_path / "out", identity="a"):
            pass
    assert find_exit_code(caught.value) == 75
    with OutputFolder(tmp_path / "out", identity="a") as folder:
        assert folder.is_done


def test_folders_of_the_cache_may_vanish_while_they_are_listed(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path)
    for name in ("one", "two"):
        cache.partition("length", "m", name).write(np.array([b"k" * 16], "S16"), np.ones(1))
    scan = os.scandir

    def vanishing(path):
        if Path(path).name == "two" and Path(path).exists():
            for file in Path(path).iterdir():
                file.unlink()
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert [entry.fingerprint for entry in cache.entries()] == ["one"]
    assert cache.prune(max_bytes=0) > 0
