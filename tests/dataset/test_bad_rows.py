"""Each kind of bad row is rejected with its place and its reason."""

import json

import polars as pl
import pytest

from thresher.dataset import load
from thresher.errors import InputError

GOOD = '{"instruction": "say", "input": "", "output": "yes"}'


def rejected(path, **arguments):
    dataset = load(path, **arguments)
    assert dataset.n_read == len(dataset) + len(dataset.rejected)
    return [(line, reason) for _, line, reason, _ in dataset.rejected.iter_rows()]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"instruction": "a", "output": "b"', "broken JSON: unexpected end of data"),
        (b"[1, 2]", "a row must be a JSON object, found a list"),
        (b"null", "a row must be a JSON object, found null"),
        (b'{"instruction": "a"}', "field 'output' is missing"),
        (b'{"instruction": "a", "output": null}', "field 'output' is null"),
        (b'{"instruction": "a", "output": " \\n"}', "field 'output' is empty"),
        (b'{"instruction": "a", "output": "\\u00a0"}', "field 'output' is empty"),
        (b'{"instruction": "a", "output": "\\u200d\\u2060"}', "field 'output' is empty"),
        (b'{"instruction": "", "input": "", "output": "b"}', "fields 'instruction', 'input' are empty"),
        (b'{"instruction": "a", "output": 5}', "field 'output' must be text, found a number"),
        (b'{"instruction": "a", "output": ["b"]}', "field 'output' must be text, found a list"),
        (b'{"instruction": "a", "output": true}', "field 'output' must be text, found true/false"),
        (b'{"instruction": "a", "input": 3, "output": "b"}', "field 'input' must be text, found a number"),
        (b'{"instruction": "a", "output": NaN}', "the row holds NaN, which is not JSON"),
        (b'{"instruction": "a", "output": -Infinity, "x": NaN}', "the row holds Infinity, which is not JSON"),
        (b'{"instruction": "a", "output": "b", "history": [[NaN]]}', "the row holds NaN, which is not JSON"),
        (b'{"instruction": "a", "output": "b", "x": NaN', "broken JSON: unexpected character"),
        (b'{"instruction": "a", "output": "\xff"}', "the row is not UTF-8"),
        (b'{"instruction": "a", "output": "b", "x": "\xff"}', "the row is not UTF-8"),
        (b'\xef\xbb\xbf{"instruction": "a", "output": "b"}', "the row is preceded by a byte order mark"),
        (b'{"instruction": "a", "output": "b\0"}', "the row holds a NUL byte"),
        (b'{"instruction": "a", "output": "b\\u0000"}', "field 'output' holds a NUL character"),
        (b'{"prompt": "a", "completion": "b"}', "fields 'instruction', 'output' of schema alpaca are missing"),
        (b'{"instruction": "a", "output": "b", "history": "x"}', "field 'history' must be a list, found text that is"),
        (b'{"instruction": "a", "output": "b", "history": [["x"]]}', "field 'history' must hold pairs of texts"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason(tmp_path, line, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([GOOD.encode(), b"", line, GOOD.encode()]))
    [(number, found)] = rejected(path)
    assert number == 3
    assert found.startswith(reason)


def test_nan_in_columns_that_are_not_read_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    line = '{"instruction": "a", "output": "b", "score": NaN, "more": {"x": [-Infinity]}}'
    path.write_text(f"{GOOD}\n{line}\n")
    rows = load(path)
    assert rows.n_rejected == 0
    assert str(rows.column("score").to_list()) == "[None, nan]"
    assert rows.write([1], tmp_path, "copy").read_text() == line + "\n"
    assert load([{"prompt": "p", "completion": "c", "score": float("nan")}]).n_rejected == 0


def test_text_that_only_looks_like_nan_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "NaN", "output": "Infinity and NaN"}\n')
    assert load(path).frame["response"].to_list() == ["Infinity and NaN"]


def test_a_row_longer_than_the_limit_is_rejected_unread(tmp_path):
    long = json.dumps({"instruction": "a", "output": "b" * 10_000_000})
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{long}\n{GOOD}\n")
    assert rejected(path) == [(2, "the row is longer than 4194304 bytes")]
    assert rejected(path, max_row_bytes=20_000_000) == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"a", "a row must have 2 fields like the header, found 1"),
        (b"a,b,c", "a row must have 2 fields like the header, found 3"),
        (b"a,", "field 'label' is empty"),
        (b"a,\xff", "the row is not UTF-8"),
        (b"a\0,b", "the row holds a NUL byte"),
        (b"\xef\xbb\xbfa,b", "the row is preceded by a byte order mark"),
        (b'"a"b,c', "text follows a closing quote"),
        (b"a\rb,c", "a carriage return is outside quotes"),
        (b'a,"b', "a quote is opened and never closed"),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason(tmp_path, record, reason):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\n"x\ny",l\n' + record + b"\nlast,l\n")
    dataset = load(path)
    assert dataset.frame["prompt"].to_list() == ["x\ny", "last"]
    assert dataset.frame["line"].to_list() == [2, 5]
    assert dataset.rejected.select("line", "reason").rows() == [(4, reason)]


def test_faults_of_a_json_array_are_counted_by_element(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(f'[{GOOD}, {{"instruction": }}, 5, {GOOD}')
    assert rejected(path) == [
        (2, "broken JSON: unexpected character, expected a JSON value"),
        (3, "a row must be a JSON object, found a number"),
        (4, "the JSON array is not closed: the file may be truncated"),
    ]
    path.write_text(f"[{GOOD}, {GOOD}] tail")
    assert rejected(path) == [(3, "text after the end of the JSON array")]


def test_an_array_cut_off_between_elements_is_noted(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(f"[{GOOD}, {GOOD},")
    assert rejected(path) == [(3, "the JSON array is not closed: the file may be truncated")]


def test_a_repeated_id_is_rejected(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"id": i, "prompt": f"p{n}", "completion": "c"} for n, i in enumerate([7, 8, 7, "9", None])]
    path.write_text("\n".join(map(json.dumps, rows)))
    dataset = load(path, id_column="id")
    assert dataset.frame["row_id"].to_list() == ["7", "8", "9"]
    assert dataset.rejected.select("line", "reason").sort("line").rows() == [
        (3, "the id in column 'id' was used by an earlier row"),
        (5, "field 'id' is null"),
    ]
    assert dataset.rejected.filter(pl.col("line") == 3)["preview"].to_list() == [json.dumps(rows[2])]


def test_ids_that_a_missing_one_has_made_fractions_are_whole_numbers_again():
    frame = pl.DataFrame({"id": [1.0, None, 2.5], "text": ["a", "b", "c"]})
    dataset = load(frame, id_column="id")
    assert dataset.frame["row_id"].to_list() == ["1"]
    assert dataset.rejected["reason"][1] == "field 'id' must be text or a whole number, found a fraction"


def test_bad_values_of_a_table_are_rejected():
    frame = pl.DataFrame({"text": ["a", None, "", "d", "e"], "label": [0.0, 1.0, 1.0, float("nan"), 2.5]})
    dataset = load(frame)
    assert dataset.frame["response"].to_list() == ["0"]
    assert dataset.rejected["reason"].to_list() == [
        "field 'text' is null",
        "field 'text' is empty",
        "field 'label' is NaN",
        "field 'label' must be text or a whole number, found a fraction",
    ]
    assert json.loads(dataset.rejected["preview"][0]) == {"text": None, "label": 1.0}


def test_parquet_text_that_is_not_utf8_is_rejected(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = pa.array([b"good", b"\xff", b"fine"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": text}), tmp_path / "rows.parquet")
    assert rejected(tmp_path / "rows.parquet") == [(2, "the row is not UTF-8")]


def test_previews_hold_at_most_200_characters(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD + "\n" + "é" * 1000 + "\n")
    assert load(path).rejected["preview"].to_list() == ["é" * 200]


def test_strict_refuses_with_count_and_first_three(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([GOOD, "{", "[]", "{", "{"]))
    with pytest.raises(InputError, match=r"4 of 5 rows cannot be used: .*jsonl:2: broken JSON.*:3: a row must.*:4: b"):
        load(path, strict=True)
    path.write_text(GOOD)
    assert len(load(path, strict=True)) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", "rows are required, found none; the file is empty"),
        ("rows.jsonl", b"\n \n", "found none"),
        ("rows.jsonl", b"{\n{\n", "found none that can be read"),
        ("rows.csv", b"text,label\ncaf\xe9,a\n", "(1 x the row is not UTF-8); convert the file with iconv"),
        ("rows.jsonl", b'{"instruction": "", "output": ""}', "at least one usable row"),
        (
            "rows.jsonl",
            b'{"text": "a", "labels": [1, 2], "id": 3}',
            "text=text, label=labels; other columns: id; to read",
        ),
        ("rows.jsonl", b'{"question": "a", "answer": 2}', "read as query-response: prompt=question, response=answer;"),
        ("rows.json", b"[]", "the file is empty"),
        ("rows.json", b'{"version": 1, "data": [{"prompt": "a"}]}', "the file is one object: write its list 'data' to"),
        ("rows.json", b'{\n  "data": [\n{"prompt": "a"}\n]\n}', "the file is one object: write its list 'data' to"),
        ("rows.jsonl", b"\xff\xfe{\0}\0", "iconv"),
        ("rows.csv", b"", "found none; the file must hold a header and rows, and it is empty"),
        ("rows.csv", b"text,label\n", "rows are required, found none"),
        ("rows.csv", b"text,text\na,b\n", "found 'text' twice"),
        ("rows.csv", b'"text,label\na,b\n', "a quote is opened and never closed"),
        ("rows.csv", b"\xff,label\na,b\n", "header must be UTF-8"),
        ("rows.parquet", b"PAR1 nothing", "whole Parquet"),
        ("rows.arrow", b"nothing", "Arrow file is required"),
        ("rows.jsonl.gz", b"not gzip", "gzip is required"),
        ("rows.jsonl.zst", b"not zstd", "damaged"),
        ("rows.xlsx", b"", "must end in one of .jsonl"),
        ("rows.parquet.gz", b"", "must end in one of .jsonl"),
    ],
)
def test_a_file_without_usable_rows_is_refused_in_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match="rows") as caught:
        load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compressed_file_that_expands_beyond_reason_is_refused(tmp_path):
    import gzip

    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (80 << 20)))
    with pytest.raises(InputError, match="expands from"):
        load(path)
