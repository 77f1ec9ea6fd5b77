"""Generated malformed files: no exception but ours, and every row accounted for."""

import bz2
import gzip
import json

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thresher.dataset import load
from thresher.dataset.formats import text_shard
from thresher.dataset.loading import _choose_schema
from thresher.dataset.opening.open_rows import open_rows
from thresher.dataset.read_shards import read_rows
from thresher.errors import InputError, ThresherError

FAST = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

plain_text = st.text(st.characters(codec="utf-8"), max_size=12)
text = st.one_of(plain_text, st.sampled_from(["", " ", "\u00a0", "\0", "NaN", '"', "a,b", "x\ny", "\ufeff", "ok"]))
value = st.one_of(
    text, st.none(), st.integers(), st.floats(), st.booleans(), st.just([]), st.just({"a": [1]}), st.just([["q", "a"]])
)
alpaca = st.fixed_dictionaries(
    {"instruction": text, "output": text},
    optional={"input": text, "system": text, "history": value, "extra": value},
)
wild = st.dictionaries(
    st.sampled_from(["instruction", "input", "output", "system", "history", "prompt", "completion", "x"]), value
)
turn = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "judge"]), "content": value},
    optional={"tool_calls": value, "name": value},
)
chat = st.fixed_dictionaries({"messages": st.one_of(value, st.lists(turn, max_size=4))}, optional={"tools": value})
labeled = st.fixed_dictionaries({"text": value, "label": value})


@pytest.fixture(autouse=True, scope="module")
def small_pieces():
    """Let the columnar parser see good rows beside bad ones, though the files here are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_shard, "PIECE_ROWS", 2)
        yield


GOOD = {"instruction": "say", "output": "yes"}
noise = st.sampled_from(
    [
        b"",
        b"  \r",
        b"{",
        b"null",
        b"[1, 2]",
        b'"text"',
        b"{}{}",
        b'{"instruction": "a", "output": "b"}{"instruction": "c", "output": "d"}',
        b'{"instruction": "a", "output": "b"} trailing',
        b'{"instruction": "a", "output": "\xff"}',
        b'{"instruction": "a", "output": "b", "x": "\xff"}',
        b'\xef\xbb\xbf{"instruction": "a", "output": "b"}',
        b'{"instruction": "a", "output": "b\\u0000"}',
        b'{"instruction": "a", "output": "b\0"}',
        b'{"instruction": "a", "output": "\\ud800"}',
        b'{"instruction": "a", "output": "b", "x": Infinity}',
        b'{"instruction": "a", "output": "b", "output": "c"}',
        b'{"instruction": "a", "output": "b", "x": 1e999}',
        b'{"instruction": "a"',
        b',"output": "b"}',
        b"\x1a\x00\x07",
    ]
)


TWO_ROWS_ON_ONE_LINE_THEN_ONE_ON_TWO = [
    b'{"instruction": "a", "output": "b"}{"instruction": "c", "output": "d", "x": [',
    b'{"y": 2}]}',
]


def dumped(row):
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


json_line = st.one_of(alpaca.map(dumped), wild.map(dumped), noise, st.binary(max_size=20))
csv_line = st.one_of(
    st.lists(text, min_size=1, max_size=4).map(lambda cells: ",".join(cells).encode()),
    st.lists(text, min_size=2, max_size=2).map(
        lambda cells: ",".join('"' + c.replace('"', '""') + '"' for c in cells).encode()
    ),
    st.sampled_from(
        [b'a,"open', b'"a"b,c', b'a"b,c', b"a\rb,c", b"\xff,c", b"\xef\xbb\xbfa,c", b"a,b,c", b"\r", b'""']
    ),
    st.binary(max_size=12),
)


def check_accounted(path, **arguments):
    try:
        dataset = load(path, **arguments)
    except ThresherError as error:
        if "\n" in str(error):
            raise AssertionError("an error must be one sentence on one line") from error
        return None
    assert dataset.n_read == len(dataset) + len(dataset.rejected)
    assert dataset.frame["row_id"].is_unique().all()
    places = pl.concat([dataset.frame.select("line"), dataset.rejected.select("line")])
    assert places["line"].is_unique().all()
    return dataset


def check_paths_agree(path, schema="alpaca"):
    try:
        shards = open_rows(path, config=None, split=None, max_row_bytes=200)
        chosen = _choose_schema(shards, schema=schema, columns=None, id_column=None)
    except ThresherError:
        return
    fast = read_rows(shards, chosen)
    slow = read_rows(shards, chosen, by_column=False)
    assert fast.frame.equals(slow.frame)
    assert fast.rejected == slow.rejected
    assert fast.n_read == slow.n_read


@FAST
@given(lines=st.lists(json_line, max_size=12), line_feed=st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
@example(lines=TWO_ROWS_ON_ONE_LINE_THEN_ONE_ON_TWO, line_feed=b"\n")
@example(lines=[dumped(GOOD)] * 3 + [b'{"instruction": "a", "output": "b", "x": NaN}'], line_feed=b"\n")
def test_every_line_of_a_malformed_jsonl_file_is_accounted_for(tmp_path, lines, line_feed):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line_feed.join([dumped(GOOD), *lines]))
    dataset = check_accounted(path, max_row_bytes=200)
    if dataset is not None:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        assert dataset.n_read == sum(bool(line.strip(b" \t\r\n")) for line in content.split(b"\n"))
    check_paths_agree(path)


@FAST
@given(elements=st.lists(json_line, max_size=8), comma=st.sampled_from([b",", b",\n  ", b" , "]), close=st.booleans())
def test_every_element_of_a_malformed_json_array_is_accounted_for(tmp_path, elements, comma, close):
    path = tmp_path / "rows.json"
    path.write_bytes(b"[" + comma.join([dumped(GOOD), *elements]) + (b"]" if close else b""))
    check_accounted(path, max_row_bytes=200)
    check_paths_agree(path)


@FAST
@given(lines=st.lists(csv_line, max_size=10), line_feed=st.sampled_from([b"\n", b"\r\n"]))
def test_every_record_of_a_malformed_csv_file_is_accounted_for(tmp_path, lines, line_feed):
    path = tmp_path / "rows.csv"
    path.write_bytes(line_feed.join([b"instruction,output", b"a,b", *lines]))
    check_accounted(path)
    check_paths_agree(path)


@FAST
@given(rows=st.lists(st.one_of(chat, labeled, alpaca, wild), max_size=8))
def test_every_row_of_a_list_is_accounted_for(rows):
    try:
        dataset = load(rows)
    except ThresherError:
        return
    assert dataset.n_read == len(rows) == len(dataset) + len(dataset.rejected)


@FAST
@given(rows=st.lists(labeled, max_size=8))
def test_labels_read_by_column_equal_labels_read_by_row(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(dumped(row) for row in [{"text": "a", "label": 1}, *rows]))
    check_paths_agree(path, "text-label")


@FAST
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".jsonl", ".json", ".csv", ".parquet", ".arrow"]))
def test_random_bytes_end_in_one_sentence(tmp_path, content, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    check_accounted(path)


@FAST
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), suffix=st.sampled_from([".gz", ".bz2", ".zst"]))
def test_damaged_compressed_files_are_refused_or_accounted_for(tmp_path, cut, flip, suffix):
    import zstandard

    plain = b"\n".join(dumped(GOOD | {"output": f"yes {i * 7919}"}) for i in range(40))
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}[suffix]
    content = bytearray(compress(plain))
    if flip < len(content):
        content[flip] ^= 0x41
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(content[: max(len(content) - cut, 0)])
    check_accounted(path)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_compressed_file_that_was_cut_off_is_refused(tmp_path, suffix):
    import zstandard

    plain = b"\n".join(dumped(GOOD | {"output": f"yes {i * 7919}"}) for i in range(400))
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}[suffix]
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(compress(plain)[:-20])
    with pytest.raises(ThresherError, match="rows.jsonl"):
        load(path)


@FAST
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["text", "label", "n"]), value), min_size=1, max_size=6),
    lazy=st.booleans(),
)
def test_every_row_of_a_frame_is_accounted_for(rows, lazy):
    frame = pl.DataFrame(
        {
            "text": [row.get("text") if isinstance(row.get("text"), str) else None for row in rows],
            "label": [row.get("label") if isinstance(row.get("label"), float) else None for row in rows],
        },
        schema={"text": pl.String, "label": pl.Float64},
    )
    try:
        dataset = load(frame.lazy() if lazy else frame, schema="text-label")
    except ThresherError:
        return
    assert dataset.n_read == len(rows) == len(dataset) + len(dataset.rejected)


@pytest.mark.parametrize("depth", [500, 1020, 5000])
def test_deep_nesting_is_read_alike_by_column_and_by_row(tmp_path, depth):
    path = tmp_path / "rows.jsonl"
    deep = b'{"instruction": "a", "output": "b", "x": ' + b"[" * depth + b"]" * depth + b"}"
    path.write_bytes(b"\n".join([dumped(GOOD), deep]))
    dataset = check_accounted(path)
    assert dataset.rows(range(len(dataset)))[0] == GOOD
    shards = open_rows(path, config=None, split=None, max_row_bytes=1 << 20)
    chosen = _choose_schema(shards, schema=None, columns=None, id_column=None)
    assert read_rows(shards, chosen).rejected == read_rows(shards, chosen, by_column=False).rejected


def test_values_that_point_outside_of_their_buffers_damage_a_file(tmp_path):
    """Found by fuzzing: Arrow reads whatever lies in memory where the offsets of a text say so."""
    path = tmp_path / "rows.arrow"
    table = pa.table({"text": ["aaaa", "bbbb", "cccc"]})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    content = path.read_bytes()
    offsets = np.array([0, 4, 8, 12], np.int32)
    assert content.count(offsets.tobytes()) == 1
    path.write_bytes(content.replace(offsets.tobytes(), np.array([0, 2**30, 8, 12], np.int32).tobytes()))
    with pytest.raises(InputError, match="a whole Parquet or Arrow file is required"):
        load(path)
    path.write_bytes(content.replace(b"text", b"te\xe5t"))
    with pytest.raises(InputError, match="a whole Parquet or Arrow file is required"):
        load(path)


def test_a_table_that_is_much_larger_than_its_file_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pa.table({"text": pa.nulls(5_000_000, pa.string())}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="expands from"):
        load(path)


def test_a_second_file_of_too_long_rows_alone_is_rejected(tmp_path):
    """Found by fuzzing: the word NaN or Inf in such a file was looked for among no rows."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "In NaN Inf, all too long"}\n')
    rows = load([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], max_row_bytes=20)
    assert (len(rows), rows.rejected.height) == (1, 1)
