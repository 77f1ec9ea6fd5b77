"""Objects that do not stand on a line each end in one sentence; tables by column are read."""

import json

import pytest

from thresher.dataset import load
from thresher.dataset.formats.json_shape import read_columns
from thresher.errors import InputError

ROWS = [{"prompt": f"p {i}", "completion": f"c {i}", "tags": [i, {"a": None}]} for i in range(5)]
PRETTY = [json.dumps(row, indent=2) for row in ROWS]
LINES = [json.dumps(row) for row in ROWS]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n".join(PRETTY), "pretty-printed over several lines; write one on each line with: jq -c . FILE > NEW"),
        ("\n\n".join(PRETTY) + "\n", "pretty-printed over several lines"),
        (",\n".join(PRETTY), r"pretty-printed .*; write the objects between \[ and \] into a file that ends in .json"),
        ("".join(PRETTY), "pretty-printed over several lines"),
        (PRETTY[0], "pretty-printed over several lines"),
        ("".join(LINES), "objects without line feeds between them; write one on each line with: jq"),
        (" ".join(LINES) + "\n", "objects without line feeds between them"),
        (",".join(LINES), r"without line feeds between them; write the objects between \[ and \]"),
        (",\n".join(LINES) + ",\n", "lines that end in a comma; remove the commas with: sed"),
        (", \r\n".join(LINES), "lines that end in a comma"),
        ("\ufeff" + ",\n".join(LINES), "lines that end in a comma"),
    ],
)
def test_objects_that_are_not_on_a_line_each_are_refused_with_advice(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content.encode())
    with pytest.raises(InputError, match=message):
        load(path)


def test_a_few_such_lines_among_good_ones_are_rejected_alone(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([LINES[0] + LINES[1], LINES[2] + ",", *LINES]))
    rows = load(path)
    assert (len(rows), rows.n_rejected) == (5, 2)


def write_labeled(rows, labels):
    return {name: {label: row[name] for label, row in zip(labels, rows, strict=True)} for name in rows[0]}


NUMBERS = [str(i) for i in range(len(ROWS))]
TABLES = {
    "columns": write_labeled(ROWS, NUMBERS),
    "named rows": write_labeled(ROWS, ["a", "b", "c", "d", "e"]),
    "index": dict(zip(NUMBERS, ROWS, strict=True)),
    "split": {"columns": list(ROWS[0]), "index": [0, 1, 2, 3, 4], "data": [list(row.values()) for row in ROWS]},
    "table": {"schema": {"fields": []}, "data": [{"index": i, **row} for i, row in enumerate(ROWS)]},
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_json_that_pandas_wrote_by_column_is_read(tmp_path, content, indent):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content, indent=indent))
    rows = load(path)
    assert rows.rows(range(5)) == ROWS
    assert rows.frame["row_id"].equals(load(ROWS).frame["row_id"])
    assert rows.sources[0].bytes == path.stat().st_size
    assert load(rows.write([3, 1], tmp_path, "copy")).rows([0, 1]) == [ROWS[3], ROWS[1]]
    path.write_text(json.dumps(content, indent=indent) + "\n")
    with pytest.raises(InputError, match="the file changed"):
        rows.write([1], tmp_path, "copy")


def test_lists_by_column_are_rows_but_not_lists_of_turns_or_of_rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"text": ["a", "b"], "label": ["x", "y"]}))
    assert load(path).frame["response"].to_list() == ["x", "y"]
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path.write_text(json.dumps({"messages": chat, "tags": ["a", "b"]}))
    assert load(path).frame["prompt"].to_list() == ["q"]
    path.write_text(json.dumps({"train": [{"text": "a"}, {"text": "b"}], "test": [{"text": "a"}, {"text": "b"}]}))
    with pytest.raises(InputError, match="write its list 'train' or 'test' to a separate file"):
        load(path)
    path.write_text(json.dumps({"text": {"a": "b"}, "label": {"a": "b"}}))
    with pytest.raises(InputError):
        load(path)


def test_a_large_table_by_column_is_read(tmp_path):
    rows = [{"text": f"text {i} " + "x" * 100, "label": i % 3} for i in range(60_000)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(write_labeled(rows, range(len(rows)))))
    assert len(load(path)) == 60_000


@pytest.mark.parametrize("data", [[[1, 2]], ["a", "b"]])
def test_a_schema_beside_other_lists_is_no_table_of_pandas(data):
    assert read_columns({"schema": {"fields": []}, "data": data}) is None


def test_whole_numbers_beyond_64_bits_name_rows_and_classes_exactly(tmp_path):
    import thresher as th

    first, second = 123456789012345678901, 123456789012345678902
    for text in ('{{"key": {}, "text": "a", "label": {}}}', '{{"text": "b", "key": {}, "label": {}}}'):
        for small in ("", text.format(1, 2) + "\n"):  # the first rows tell the types
            lines = small + "".join(text.format(number, number) + "\n" for number in (first, second))
            (tmp_path / "rows.jsonl").write_text(lines)
            rows = th.load(tmp_path / "rows.jsonl", id_column="key")
            assert rows.frame["row_id"].to_list()[-2:] == [str(first), str(second)]
            assert rows.frame["response"].to_list()[-2:] == [str(first), str(second)]
            assert rows.n_rejected == 0
