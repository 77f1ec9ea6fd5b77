"""Files that expand: measured by what they decode to, whatever their footers say."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.dataset import load
from thresher.dataset.formats.tables import parquet_file
from thresher.dataset.formats.tables.parquet_pages import DATA, DATA_V2, DICTIONARY, scan_pages
from thresher.errors import InputError

LONG = "x" * 1_000_000
TOO_LARGE = "expands from"


def indexed(texts, n, column="text"):
    """n rows that share some texts, as a dictionary."""
    indices = pa.array(np.arange(n) % len(texts), pa.int32())
    return pa.table({column: pa.DictionaryArray.from_arrays(indices, texts)})


def conversations(text, n):
    turns = pa.StructArray.from_arrays(
        [
            pa.array(["user", "assistant"] * n),
            pa.DictionaryArray.from_arrays(pa.array([0, 1] * n, pa.int32()), ["hello", text]),
        ],
        names=["role", "content"],
    )
    return pa.table({"messages": pa.ListArray.from_arrays(pa.array(range(0, 2 * n + 1, 2), pa.int32()), turns)})


def prefixed(path, n):
    table = pa.table({"text": [LONG[:100_000] + str(i) for i in range(n)]})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})


BOMBS = {
    "dictionary": lambda path: pq.write_table(indexed([LONG], 20_000), path),
    "dictionary-without-schema": lambda path: pq.write_table(indexed([LONG], 20_000), path, store_schema=False),
    "version-2": lambda path: pq.write_table(
        indexed([LONG], 20_000), path, data_page_version="2.0", compression="zstd"
    ),
    "conversations": lambda path: pq.write_table(conversations(LONG, 20_000), path, store_schema=False),
    "groups": lambda path: pq.write_table(indexed([LONG], 2_000), path, row_group_size=100, compression="zstd"),
    "prefixes": lambda path: prefixed(path, 1_000),
    "numbers": lambda path: pq.write_table(pa.table({"text": np.full(9_000_000, 7)}), path),
    "compressed": lambda path: pq.write_table(
        pa.table({"text": [LONG * 80]}), path, compression="zstd", use_dictionary=False
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_parquet_that_expands_is_refused(tmp_path, name):
    path = tmp_path / "pool.parquet"
    BOMBS[name](path)
    with pytest.raises(InputError, match=TOO_LARGE):
        load(path)


def arrow(table, path, *, stream=True, **options):
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["dictionary", "compressed", "runs", "conversations", "views"])
def test_arrow_that_expands_is_refused(tmp_path, kind, stream):
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([50_000], pa.int32()), [LONG])
    view = np.array([len(LONG), 0, 0, 0], np.int32)
    view[1:2].view(np.uint8)[:] = ord("x")  # a view shows its first four bytes
    buffers = [None, pa.py_buffer(np.tile(view, 20_000).tobytes()), pa.py_buffer(LONG.encode())]
    views = pa.Array.from_buffers(pa.string_view(), 20_000, buffers)
    tables = {
        "dictionary": (indexed([LONG], 20_000), {}),
        "compressed": (pa.table({"text": [LONG * 80]}), {"compression": "zstd"}),
        "runs": (pa.table({"text": runs}), {}),
        "conversations": (conversations(LONG, 20_000), {}),
        "views": (pa.table({"text": views}), {}),
    }
    table, options = tables[kind]
    arrow(table, tmp_path / "pool.arrow", stream=stream, **options)
    with pytest.raises(InputError, match=TOO_LARGE):
        load(tmp_path / "pool.arrow")


def test_a_declared_size_is_refused_before_there_is_room_for_it(tmp_path, monkeypatch):
    """A buffer may say that it expands to 2**40 bytes: Arrow would ask for them."""
    path = tmp_path / "pool.arrow"
    arrow(pa.table({"text": ["some text " * 1000] * 100}), path, compression="zstd")
    content = path.read_bytes()
    size = (10_000 * 100).to_bytes(8, "little")
    assert content.count(size) == 1
    path.write_bytes(content.replace(size, (1 << 40).to_bytes(8, "little")))
    monkeypatch.setattr(pa.ipc, "open_stream", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=TOO_LARGE):
        load(path)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zstd"}, {"data_page_version": "2.0"}, {"use_dictionary": False}]
)
def test_pages_say_what_the_footer_says(tmp_path, options):
    table = pa.table({"a": [f"text {i % 50}" for i in range(5000)], "b": range(5000), "c": [None, True] * 2500})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1500, data_page_size=1000, **options)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    with open(tmp_path / "a.parquet", "rb") as file:
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                pages = list(scan_pages(file, column, "a"))
                data = [page for page in pages if page.kind in (DATA, DATA_V2)]
                assert sum(page.n_values for page in data) == column.num_values == group.num_rows
                # the footer counts the headers, too
                assert 0 <= column.total_uncompressed_size - sum(page.n_plain for page in pages) < 200 * len(pages)
                assert (pages[0].kind == DICTIONARY) == column.has_dictionary_page


def test_a_row_that_is_too_long_is_rejected_in_every_format(tmp_path):
    rows = [{"text": "short", "label": "a"}, {"text": "x" * 6000, "label": "b"}, {"text": "more", "label": "a"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "a.parquet")
    arrow(table, tmp_path / "a.arrow")
    arrow(table, tmp_path / "a.feather", stream=False)
    for source in (*sorted(tmp_path.iterdir()), table, rows):
        dataset = load(source, max_row_bytes=5000)
        assert dataset.frame["prompt"].to_list() == ["short", "more"]
        assert dataset.rejected["reason"].to_list() == ["the row is longer than 5000 bytes"]
        assert dataset.rejected["line"].to_list() == [2]
        assert len(load(source)) == 3


def test_rows_are_the_same_in_small_batches(tmp_path, monkeypatch):
    """Rows that share long texts are decoded few at a time, and none is lost or moved."""
    texts = [f"{i} " + "y" * 20_000 for i in range(30)]
    table = indexed(texts, 3000, "text").append_column("id", pa.array(range(3000)))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700, store_schema=False)
    expected = load(tmp_path / "a.parquet").frame["prompt"].to_list()
    monkeypatch.setattr(parquet_file, "BATCH_BYTES", 1 << 20)
    file = parquet_file.ParquetFile(tmp_path / "a.parquet")
    batches = list(file.batches(None))
    assert max(batch.nbytes for batch in batches) <= 1 << 21
    assert pa.concat_tables(batches)["id"].to_pylist() == list(range(3000))
    assert load(tmp_path / "a.parquet").frame["prompt"].to_list() == expected


def test_conversations_that_share_texts_are_measured_and_read(tmp_path, monkeypatch):
    pq.write_table(conversations("z" * 5000, 400), tmp_path / "a.parquet", store_schema=False)
    monkeypatch.setattr(parquet_file, "BATCH_BYTES", 1 << 18)
    file = parquet_file.ParquetFile(tmp_path / "a.parquet")
    assert 1 < file._groups[0].batch_rows <= 64
    assert sum(len(batch) for batch in file.batches(None)) == 400
    assert len(load(tmp_path / "a.parquet")) == 400


def test_a_file_that_is_cut_while_it_is_read_ends_in_a_sentence(tmp_path):
    """A mapped file that is cut ends the process with SIGBUS."""
    path = tmp_path / "a.arrow"
    arrow(pa.table({"text": [f"{i} " + "w" * 1000 for i in range(30_000)]}), path, stream=False)
    script = f"""
        import os
        from pathlib import Path
        from thresher.dataset.formats.tables.arrow_file import ArrowFile
        from thresher.dataset.formats.table_shard import explain_errors
        from thresher.errors import InputError
        path = Path({str(path)!r})
        file = ArrowFile(path)
        os.truncate(path, path.stat().st_size // 2)
        try:
            with explain_errors("a.arrow"):
                sum(len(batch["text"].combine_chunks()[-1].as_py()) for batch in file.batches(None))
        except InputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "a whole Parquet or Arrow file is required" in done.stdout or "must be readable" in done.stdout


def test_a_saved_dataset_names_files_of_its_own_folder(tmp_path):
    arrow(pa.table({"text": ["a", "b"]}), tmp_path / "elsewhere.arrow")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../elsewhere.arrow"}]}))
    with pytest.raises(InputError, match=r"must name files of its own folder, got '\.\./elsewhere"):
        load(folder)
