"""Views, columns, identities, and writing rows back."""

import bz2
import csv
import gzip
import io
import json

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from thresher.dataset import load
from thresher.errors import InputError, NotFoundError
from thresher.features.compute import column_numbers

ROWS = [{"text": f"t{i}", "label": "ab"[i % 2], "n": i, "x": None if i == 3 else i / 2} for i in range(8)]


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return load(path)


def test_take_gives_rows_in_the_order_asked_and_composes(dataset):
    view = dataset.take([6, 1, 4]).take(np.array([2, 0]))
    assert view.frame["prompt"].to_list() == ["t4", "t6"]
    assert view.rows([1, 0]) == [ROWS[6], ROWS[4]]
    assert view.column("n").to_list() == [4, 6]
    assert len(dataset) == 8


def test_indices_out_of_range_are_refused(dataset):
    for indices in ([8], [-1], [True, False], [0.5]):
        with pytest.raises(InputError, match="indices must be"):
            dataset.take(indices)
    assert len(dataset.take([])) == 0


def test_texts_never_hold_the_label(dataset):
    assert dataset.texts().to_list() == [row["text"] for row in ROWS]
    assert load([{"prompt": "p", "completion": "c"}]).texts().to_list() == ["p\nc"]
    assert load([{"text": "t"}]).texts().to_list() == ["t"]


def test_columns_are_aligned_and_typed(dataset):
    assert dataset.column("n").dtype == pl.Int64
    assert dataset.column("x").to_list() == [row["x"] for row in ROWS]
    assert dataset.column_names == ["text", "label", "n", "x"]
    with pytest.raises(NotFoundError, match="column 'lable' not found; there are: .*did you mean 'label'"):
        dataset.column("lable")


def test_extra_columns_are_checked_when_loading():
    with pytest.raises(NotFoundError, match="column 'source' not found"):
        load(ROWS, extra_columns=["source"])
    assert load(ROWS, extra_columns=["n"]).column("n").sum() == 28


mixed = st.one_of(
    st.none(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.just([1]),
    st.just({"a": 1}),
)


@settings(max_examples=80, deadline=None)
@given(values=st.lists(mixed, min_size=1, max_size=8), absent=st.booleans())
def test_a_column_of_mixed_values_keeps_every_value(values, absent):
    rows = [{"text": f"t{i}", "v": value} for i, value in enumerate(values)] + ([{"text": "last"}] if absent else [])
    found = load(rows).column("v").to_list()
    assert len(found) == len(rows)
    for value, got in zip(values, found, strict=False):
        if value is None:
            assert got is None
        elif isinstance(got, str) and not isinstance(value, str):
            assert json.loads(got) == pytest.approx(value)
        else:
            assert got == value


def test_row_ids_depend_on_content_alone_and_repeats_are_numbered(tmp_path):
    rows = [{"prompt": "a", "completion": "b"}] * 3 + [
        {"prompt": "ab", "completion": ""},
        {"prompt": "", "completion": "ab"},
    ]
    first = load([*rows[:3], {"prompt": "a\nb", "completion": "c"}])
    ids = first.frame["row_id"].to_list()
    assert ids[1:3] == [f"{ids[0]}-1", f"{ids[0]}-2"]
    assert len(ids[0]) == 32
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "other": 1}
    assert load([chat]).frame["row_id"][0] == ids[0]
    assert load([{"text": "a", "label": "b"}]).frame["row_id"][0] != ids[0]


def test_the_fingerprint_ignores_path_and_order(dataset):
    shuffled = load([ROWS[i] for i in (3, 1, 2, 0, 7, 6, 5, 4)])
    assert shuffled.fingerprint == dataset.fingerprint
    assert shuffled.take(range(7)).fingerprint != dataset.fingerprint


def test_repr_tells_kind_schema_rows_and_files(dataset):
    assert repr(dataset) == "Dataset(8 rows, kind='classification', schema='text-label', files=rows.jsonl)"


odd_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10).map("x".__add__)
order = st.permutations(range(5)).flatmap(lambda p: st.integers(0, 5).map(lambda n: p[:n]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(odd_text, min_size=5, max_size=5),
    picks=order,
    line_feed=st.sampled_from([b"\n", b"\r\n"]),
    ascii_only=st.booleans(),
)
def test_written_lines_are_those_of_the_file_byte_for_byte(tmp_path, texts, picks, line_feed, ascii_only):
    lines = [json.dumps({"text": text, "big": 10**30}, ensure_ascii=ascii_only, indent=None).encode() for text in texts]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(line + line_feed for line in lines))
    written = load(path).write(picks, tmp_path, "subset")
    assert written == tmp_path / "subset.jsonl"
    assert written.read_bytes() == b"".join(lines[i] + line_feed for i in picks)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(odd_text, min_size=5, max_size=5), picks=order, indent=st.sampled_from([None, 0, 2]))
def test_a_written_array_holds_the_elements_as_they_were(tmp_path, texts, picks, indent):
    rows = [{"text": text, "big": 10**30, "nested": [{"a": "]},["}]} for text in texts]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=indent))
    dataset = load(path)
    written = dataset.write(picks, tmp_path, "subset")
    assert json.loads(written.read_text()) == [rows[i] for i in picks]
    assert dataset.write(range(5), tmp_path, "all").read_bytes() == path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(odd_text.filter(lambda t: "\r" not in t), min_size=5, max_size=5),
    picks=order,
    line_feed=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_written_records_are_those_of_the_file_byte_for_byte(tmp_path, texts, picks, line_feed, delimiter, quoting):
    # in a TSV these may as well be two rows with a lone quote each, and are taken for such
    assume(delimiter != "\t" or not any("\t" in text and "\n" in text for text in texts))
    records = []
    for text in texts:
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=delimiter, lineterminator=line_feed, quoting=quoting).writerow([text, "l"])
        records.append(buffer.getvalue().encode())
    header = f"text{delimiter}label{line_feed}".encode()
    path = tmp_path / "rows.csv"
    path.write_bytes(header + b"".join(records).removesuffix(line_feed.encode()))
    dataset = load(path)
    assert dataset.frame["prompt"].to_list() == texts
    assert dataset.write(picks, tmp_path, "subset").read_bytes() == header + b"".join(records[i] for i in picks)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".tsv"])
def test_compressed_files_come_back_compressed(tmp_path, kind, suffix):
    import zstandard

    plain = {
        ".jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in ROWS),
        ".json": json.dumps(ROWS).encode(),
        ".csv": b"text,label\n" + b"".join(f"{r['text']},{r['label']}\n".encode() for r in ROWS),
        ".tsv": b"text\tlabel\n" + b"".join(f"{r['text']}\t{r['label']}\n".encode() for r in ROWS),
    }[kind]
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}[suffix]
    expand = {
        ".gz": gzip.decompress,
        ".bz2": bz2.decompress,
        ".zst": lambda b: zstandard.ZstdDecompressor().stream_reader(b).read(),
    }[suffix]
    path = tmp_path / f"rows{kind}{suffix}"
    path.write_bytes(compress(plain))
    dataset = load(path)
    assert dataset.frame["prompt"].to_list() == [row["text"] for row in ROWS]
    written = dataset.write(range(8), tmp_path, "subset")
    assert written.name == f"subset{kind}{suffix}"
    assert expand(written.read_bytes()) == plain
    assert dataset.write(range(8), tmp_path, "again").read_bytes() == written.read_bytes()


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_a_table_comes_back_with_its_schema_in_the_order_asked(tmp_path, suffix):
    schema = pa.schema(
        [pa.field("text", pa.string_view()), pa.field("label", pa.int8()), pa.field("v", pa.list_(pa.float32()))],
        metadata={"mine": "kept"},
    )
    table = pa.table(
        {"text": list("abcde"), "label": [0, 1, 0, 1, 0], "v": [[1.5], None, [], [2, 3], [4]]}, schema=schema
    )
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        new = pa.ipc.new_file if suffix == ".feather" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as file, new(file, schema) as writer:
            writer.write_table(table, max_chunksize=2)
    dataset = load(path)
    assert dataset.frame["response"].to_list() == ["0", "1", "0", "1", "0"]
    written = dataset.write([4, 0, 3], tmp_path, "subset")
    if suffix == ".parquet":
        found = pq.read_table(written)
    else:
        with pa.OSFile(str(written)) as file:
            found = (pa.ipc.open_file if suffix == ".feather" else pa.ipc.open_stream)(file).read_all()
    rows = table.to_pylist()
    assert found.to_pylist() == [rows[4], rows[0], rows[3]]
    assert found.schema.equals(schema)
    assert found.schema.metadata[b"mine"] == b"kept"
    assert dataset.rows([3, 1]) == [rows[3], rows[1]]


def test_shards_of_one_format_are_written_to_one_file(tmp_path):
    for name, rows in (("a", ROWS[:5]), ("b", ROWS[5:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    written = dataset.write([7, 0, 6], tmp_path, "subset")
    assert [json.loads(line) for line in written.read_text().splitlines()] == [ROWS[7], ROWS[0], ROWS[6]]
    assert dataset.column("n").to_list() == list(range(8))
    assert dataset.rows([7, 0, 6]) == [ROWS[7], ROWS[0], ROWS[6]]


def test_arrow_files_with_dictionaries_of_their_own_are_written_as_json_lines(tmp_path):
    for name, label in (("a", "x"), ("b", "y")):
        table = pa.table({"text": [name], "label": pa.array([label]).dictionary_encode()})
        with pa.OSFile(str(tmp_path / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    written = load([tmp_path / "a.arrow", tmp_path / "b.arrow"]).write([1, 0], tmp_path, "subset")
    assert [json.loads(line)["label"] for line in written.read_text().splitlines()] == ["y", "x"]
    assert pl.read_ipc(load(tmp_path / "b.arrow").write([0], tmp_path, "one"))["label"].to_list() == ["y"]


def test_shards_of_different_formats_are_written_as_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    pl.DataFrame(ROWS[1:3]).write_parquet(tmp_path / "b.parquet")
    dataset = load([tmp_path / "a.jsonl", tmp_path / "b.parquet"])
    written = dataset.write([2, 0], tmp_path, "subset")
    assert written.name == "subset.jsonl"
    assert [json.loads(line) for line in written.read_text().splitlines()] == [ROWS[2], ROWS[0]]


def test_a_file_that_changed_since_it_was_read_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    dataset = load(path)
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[::-1]))
    with pytest.raises(InputError, match="changed while it was being read; run again"):
        dataset.write([0], tmp_path, "subset")
    path.unlink()
    with pytest.raises(InputError, match="cannot be read again"):
        dataset.write([0], tmp_path, "subset")


def test_json_lines_in_a_file_named_json_and_an_array_in_one_named_jsonl_are_read(tmp_path):
    (tmp_path / "a.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "b.jsonl").write_text(json.dumps(ROWS, indent=2))
    for name in ("a.json", "b.jsonl"):
        dataset = load(tmp_path / name)
        assert dataset.frame["prompt"].to_list() == [row["text"] for row in ROWS]
        assert dataset.write(range(8), tmp_path, "all").read_bytes() == (tmp_path / name).read_bytes()


def test_a_byte_order_mark_at_the_start_of_a_file_is_skipped(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\na,b\r\n")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a", "label": "b"}\n')
    (tmp_path / "c.json").write_bytes(b'\xef\xbb\xbf[{"text": "a", "label": "b"}]')
    for name in ("a.csv", "b.jsonl", "c.json"):
        dataset = load(tmp_path / name, strict=True)
        assert dataset.frame.select("prompt", "response").rows() == [("a", "b")]
        assert load(dataset.write([0], tmp_path, "again"), strict=True).fingerprint == dataset.fingerprint


def test_a_large_file_is_read_in_blocks_with_the_right_lines(tmp_path):
    rows = [{"text": f"row {i} " + "y" * 400, "label": str(i % 7)} for i in range(30_000)]
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row) for row in rows]
    lines[12_345] = "{broken"
    path.write_text("\n".join(lines))
    dataset = load(path)
    assert dataset.rejected["line"].to_list() == [12_346]
    assert dataset.frame["line"].to_list() == [i + 1 for i in range(30_000) if i != 12_345]
    assert dataset.rows([29_998, 20_000]) == [rows[29_999], rows[20_001]]
    assert dataset.frame["prompt"].to_list() == [row["text"] for i, row in enumerate(rows) if i != 12_345]


def test_names_in_a_csv_header_lose_the_spaces_around_them(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text, label\na,b\n")
    dataset = load(path)
    assert (dataset.kind, dataset.rows([0])) == ("classification", [{"text": "a", "label": "b"}])
    assert dataset.write([0], tmp_path, "subset").read_text() == "text, label\na,b\n"


def test_rows_of_a_csv_file_keep_their_spaces(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"text,label\r\n a , b \r\n")
    assert load(tmp_path / "rows.csv").rows([0]) == [{"text": " a ", "label": " b "}]


def test_rows_keep_whole_numbers_of_any_size(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a", "label": "b", "n": 10**30}) + "\n")
    pl.DataFrame({"text": ["c"], "label": ["d"]}).write_parquet(tmp_path / "b.parquet")
    dataset = load([tmp_path / "a.jsonl", tmp_path / "b.parquet"])
    assert dataset.rows([0])[0]["n"] == 10**30
    assert str(10**30) in dataset.write([0, 1], tmp_path, "subset").read_text()
    assert dataset.column("n").to_list() == [str(10**30), None]
    assert column_numbers(dataset, "n").values[0] == 1e30


def test_a_column_that_names_no_rows_is_refused_as_ids(tmp_path):
    rows = [{"text": f"row {i}", "label": f"class {i % 2}", "id": i // 2} for i in range(40)]
    with pytest.raises(InputError, match="id_column 'label': must name each row, but 38 of 40 rows repeat"):
        load(rows, id_column="label")
    assert load(rows, id_column="id").n_rejected == 20


def test_columns_that_only_later_rows_have_are_known(tmp_path):
    rows = [{"text": f"t {i}"} for i in range(250)] + [{"text": f"t {i}", "label": "x"} for i in range(250, 300)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pool = load(path)
    assert pool.column_names == ["text", "label"]
    assert pool.to_polars()["label"].to_list() == [row.get("label") for row in rows]
    assert len(load(path, columns={"text": "text", "label": "label"})) == 50
    rows = [{"text": f"t {i}", "label": i % 3} for i in range(250)] + [
        {"text": f"u {i}", "label": "1.0"} for i in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert set(load(path).frame["response"]) == {"0", "1", "2"}
