"""Numbers of classes are read by the names of their own file, and files are joined by name."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

import thresher as th
from thresher.dataset import load
from thresher.errors import InputError


def write_part(path, labels, names=None, first=0):
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if names else None
    table = pa.table({"text": [f"text {first + i}" for i in range(len(labels))], "label": labels})
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    write_part(folder / "a.parquet", [0, 1, 0], ["neg", "pos"])
    write_part(folder / "b.parquet", [0, 1, 0], ["pos", "neg"], first=10)
    write_part(folder / "c.parquet", [0, 2, 3], ["x", "y", "pos"], first=20)
    return folder


def test_files_that_name_classes_in_another_order_are_joined_by_name(parts):
    rows = load(parts)
    assert rows.frame["response"].to_list() == ["neg", "pos", "neg", "pos", "neg", "pos", "x", "pos"]
    assert rows.rejected["reason"].to_list() == ["field 'label' must be a class number in 0..2"]
    assert rows.column("label").to_list() == rows.frame["response"].to_list()
    assert [row["label"] for row in rows.rows([0, 3, 6])] == ["neg", "pos", "x"]
    assert load(parts / "a.parquet").column("label").to_list() == [0, 1, 0]


def test_rows_of_such_files_are_written_by_name(parts, tmp_path):
    rows = load(parts)
    path = rows.write([1, 3, 6], tmp_path, "rows")
    assert load(path).frame.equals(
        rows.take([1, 3, 6]).frame.with_columns(file=load(path).frame["file"], line=load(path).frame["line"])
    )
    alone = rows.write([3, 4], tmp_path, "alone")
    assert alone.suffix == ".parquet"
    assert load(alone).frame["response"].to_list() == ["pos", "neg"]


def test_a_changed_row_of_such_files_stays_in_its_class(parts, tmp_path):
    from thresher.dataset.masked_rows import replace_rows

    rows = load(parts)
    changed = replace_rows(rows, {3: {**rows.rows([3])[0], "text": "other"}})
    assert changed.frame.row(3)[1:3] == ("other", "pos")
    assert load(changed.write([3, 4], tmp_path, "rows")).frame["response"].to_list() == ["pos", "neg"]


@pytest.mark.parametrize("column", ["label", "kind"])
def test_the_engine_of_many_machines_reads_them_alike(parts, tmp_path, column):
    from thresher.selection.distributed import InProcess, select_distributed, shards
    from thresher.selection.request import SelectCall

    for path in parts.glob("*.parquet"):
        table = pyarrow.parquet.read_table(path)
        metadata = {b"huggingface": table.schema.metadata[b"huggingface"].replace(b'"label"', f'"{column}"'.encode())}
        table = table.rename_columns(["text", column]).replace_schema_metadata(metadata)
        pyarrow.parquet.write_table(table, path)
    quota, columns = f"{column}=balanced", {"text": "text", "label": column}
    here = th.load(str(parts), columns=columns)
    assert here.column(column).to_list() == here.frame["response"].to_list()
    call = SelectCall.of_options(shards(parts, columns=columns), "random", {"budget": 5, "quota": quota}, None)
    there = select_distributed(InProcess(), call, tmp_path / "there")
    here = th.select(here, "random", budget=5, quota=quota, out=tmp_path / "here")
    assert there.manifest.hash == here.manifest.hash
    assert there.scores.row_id.equals(here.scores.row_id)


def test_bare_numbers_are_read_by_the_names_of_the_first_file_or_refused(tmp_path):
    write_part(tmp_path / "a.parquet", [0, 1], ["neg", "pos"])
    write_part(tmp_path / "b.parquet", [0, 1], first=10)
    assert load([tmp_path / "a.parquet", tmp_path / "b.parquet"]).frame["response"].to_list() == ["neg", "pos"] * 2
    with pytest.raises(InputError, match=r"b.parquet: the numbers in column 'label' need names .* \(neg, pos\)"):
        load([tmp_path / "b.parquet", tmp_path / "a.parquet"])
    write_part(tmp_path / "c.parquet", [0, 1], ["pos", "neg"], first=20)
    with pytest.raises(InputError, match="load these files apart"):
        load(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"text": "t", "label": "pos"}\n')
    assert load([tmp_path / "d.jsonl", tmp_path / "c.parquet"]).frame["response"].to_list() == ["pos", "pos", "neg"]
