"""Files that are not what their name says end in one sentence that says what to do."""

import bz2
import gzip
import io
import itertools
import time
import zipfile

import pytest

from thresher.dataset import load
from thresher.errors import InputError

LINES = '{"prompt": "p", "completion": "c"}\n' * 3


def make_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows", LINES)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", gzip.compress(LINES.encode()), "found gzip; add .gz to it"),
        ("rows.csv", bz2.compress(b"text,label\na,b\n"), "found bzip2; add .bz2 to it"),
        ("rows.json", b"\x28\xb5\x2f\xfd\x00", "found zstd; add .zst to it"),
        ("rows.csv", make_zip(), "an Excel workbook: unpack it, or save the sheet as CSV"),
        ("rows.jsonl", b"PAR1....", "found Parquet: rename it to end in .parquet"),
        ("rows.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "with git lfs pull"),
        ("rows.json", b"<!DOCTYPE html><html>", "a web page: download the file itself"),
        ("rows.jsonl.gz", LINES.encode(), "found none though its name ends in .gz; rename it"),
        ("rows.jsonl", LINES.encode("utf-16-le"), "looks like UTF-16LE; convert it with: iconv -f UTF-16LE -t UTF-8"),
        ("rows.csv", "text,label\na,b\n".encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
        ("rows.csv", b"text,label\ra,0\rb,1\r", "found bare carriage returns"),
        ("rows.jsonl", LINES.replace("\n", "\r").encode(), "tr '\\r' '\\n' < FILE > NEW"),
    ],
    # gzip notes the time, which would give the same test another name in each process
    ids=itertools.count(),
)
def test_a_file_of_another_kind_is_refused_with_advice(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_line_that_names_excels_delimiter_is_read_past(tmp_path, line, end):
    path = tmp_path / "rows.csv"
    path.write_bytes(end.join([line, "text;label", "a,b;0", "c;1", ""]).encode())
    rows = load(path)
    assert rows.frame.select("prompt", "response", "line").rows() == [("a,b", "0", 3), ("c", "1", 4)]
    copy = rows.write([1], tmp_path, "copy")
    assert copy.read_bytes() == end.join([line, "text;label", "c;1", ""]).encode()


def test_columns_without_a_name_are_told_apart(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label,,,\na,0,,,\nb,1,x,,\n")
    rows = load(path)
    assert rows.frame["response"].to_list() == ["0", "1"]
    assert rows.column_names == ["text", "label", "unnamed 3", "unnamed 4", "unnamed 5"]
    assert rows.write([1], tmp_path, "copy").read_text() == "text,label,,,\nb,1,x,,\n"
    path.write_text(",text,label\n0,a,0\n")
    assert load(path).column_names == ["", "text", "label"]


def test_rows_that_are_not_utf8_come_with_advice(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\na,0\ncaf\xe9,1\n")
    rows = load(path)
    assert rows.rejected["reason"].to_list() == ["the row is not UTF-8"]
    assert "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW" in rows.notes[0]


def test_filled_columns_of_pictures_are_reported_last():
    turns = [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}]
    assert "column 'images' is not empty but not read" in load([{"messages": turns, "images": ["p.png"]}]).notes[-1]
    assert load([{"messages": turns, "images": []}, {"messages": turns, "images": None}]).notes == ()


def test_a_hundred_thousand_columns_without_a_name_are_named_in_one_pass(tmp_path):
    n = 100_000
    path = tmp_path / "wide.csv"
    path.write_text("text" + "," * n + "\n" + ("one" + "," * n + "\n") * 2)
    began = time.monotonic()
    dataset = load(path)
    assert (len(dataset), len(dataset.column_names)) == (2, n + 1)
    assert dataset.column_names[-1] == f"unnamed {n + 1}"
    assert time.monotonic() - began < 60  # seconds; six minutes when each name is compared with all
