"""Seals: what is read is what was written, and what was changed is named."""

import json
import subprocess
import sys

import polars as pl
import pytest

from thresher.artifacts.folder import OutputFolder, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.artifacts.seal import check_file, encode_record, find_damage, hash_files, read_record, seal_record
from thresher.artifacts.stored import read_table
from thresher.errors import ManifestError, OutputError

CONTENT = {"format": FORMAT, "kind": "thing", "identity": "1", "n": {1: 2.5, 10: None}, "run": {"seconds": 0.1}}


def write_folder(path, *, force=False):
    with OutputFolder(path, identity="1", force=force) as out:
        if not out.is_done:
            (out.work / "inner").mkdir()
            (out.work / "inner" / "a.txt").write_text("a")
            write_parquet(pl.DataFrame({"x": [1, 2, 3]}), out.work / "table.parquet")
            (out.work / "manifest.json").write_bytes(Manifest(CONTENT).to_json())
            out.publish()
        return out.is_done


def test_a_record_comes_back_as_it_was(tmp_path):
    for content in (CONTENT, {"run": {}}, {"steps": 3}):
        (tmp_path / "record.json").write_bytes(encode_record(seal_record(content, {"a": "b"})))
        expected = json.loads(json.dumps(content))
        assert read_record(tmp_path / "record.json") == {key: value for key, value in expected.items() if value != {}}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"thing"', '"thinh"'),
        lambda text: text.replace("0.1", "0.2"),
        lambda text: text.replace('"run"', '"rum"'),
        lambda text: text.replace('"seal"', '"sea1"'),
        lambda text: text.replace('"files"', '"filez"'),
        lambda text: text.replace("table.parquet", "table.parquer"),
        lambda text: text.replace("{", "[", 1),
        lambda text: "",
        lambda text: "[" * 100_000,
    ],
)
def test_a_changed_record_is_refused(change, tmp_path):
    write_folder(tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ManifestError, match="must be"):
        Manifest.read(tmp_path / "out")


def test_a_finished_folder_with_a_changed_file_is_not_done(tmp_path):
    assert not write_folder(tmp_path / "out")
    assert write_folder(tmp_path / "out")
    (tmp_path / "out" / "inner" / "a.txt").write_text("b")
    with pytest.raises(OutputError, match=r"inner/a.txt: must be unchanged.*--force"):
        write_folder(tmp_path / "out")
    assert not write_folder(tmp_path / "out", force=True)
    assert (tmp_path / "out" / "inner" / "a.txt").read_text() == "a"
    assert write_folder(tmp_path / "out")


def test_a_missing_file_is_damage_and_a_new_one_is_not(tmp_path):
    write_folder(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert find_damage(tmp_path / "out") is None
    check_file(tmp_path / "out" / "notes.txt")
    (tmp_path / "out" / "table.parquet").unlink()
    assert "table.parquet: must be readable" in find_damage(tmp_path / "out")


def test_a_folder_of_an_earlier_version_is_read_as_it_is(tmp_path):
    (tmp_path / "manifest.json").write_bytes(Manifest(CONTENT).to_json())
    (tmp_path / "table.parquet").write_bytes(b"no table")
    assert find_damage(tmp_path) is None
    assert Manifest.read(tmp_path).identity == "1"
    with pytest.raises(ManifestError, match=r"table.parquet: must be readable, found"):
        read_table(tmp_path / "table.parquet")


def test_a_file_is_checked_against_the_manifest_above_it(tmp_path):
    write_folder(tmp_path / "out")
    check_file(tmp_path / "out" / "inner" / "a.txt")
    (tmp_path / "out" / "inner" / "a.txt").write_text("b")
    with pytest.raises(ManifestError, match="its checksum differs"):
        check_file(tmp_path / "out" / "inner" / "a.txt")


def test_checksums_leave_out_what_a_killed_run_was_writing(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / ".a.tmp0123").write_text("half")
    assert list(hash_files(tmp_path)) == ["a"]


def test_a_panic_of_polars_is_one_sentence(tmp_path, monkeypatch):
    def panic(*_, **__):
        raise pl.exceptions.PanicException("index out of bounds\nnote: run with RUST_BACKTRACE=1")

    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(ManifestError, match=r"found 'index out of bounds'; write it again$"):
        read_table(tmp_path / "table.parquet")


def test_reading_seals_does_not_load_polars():
    code = "import sys, thresher.artifacts.folder; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
