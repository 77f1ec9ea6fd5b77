"""Everything that holds rows can be loaded."""

import io
import json
import os
import sys

import polars as pl
import pyarrow
import pyarrow.parquet
import pytest

from thresher.dataset import load
from thresher.dataset.hub import to_hub_dataset
from thresher.errors import InputError, MissingExtraError, NotFoundError, SettingsError

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(6)]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(dataset):
    return dataset.frame["prompt"].to_list()


EXPECTED = [row["prompt"] for row in ROWS]


def test_a_list_of_files_a_glob_and_a_folder_read_the_shards_in_order(tmp_path):
    first = write_lines(tmp_path / "shards" / "a-0.jsonl", ROWS[:4])
    second = write_lines(tmp_path / "shards" / "a-1.jsonl", ROWS[4:])
    write_lines(tmp_path / "shards" / ".hidden.jsonl", ROWS)
    (tmp_path / "shards" / "README.md").write_text("no rows")
    for source in ([first, second], str(tmp_path / "shards" / "a-*.jsonl"), tmp_path / "shards"):
        dataset = load(source)
        assert prompts(dataset) == EXPECTED
        assert dataset.frame["file"].cast(pl.String).to_list() == [str(first)] * 4 + [str(second)] * 2
        assert dataset.frame["line"].to_list() == [1, 2, 3, 4, 1, 2]
        assert [source.name for source in dataset.sources] == ["a-0.jsonl", "a-1.jsonl"]


def test_sources_carry_size_and_sha256(tmp_path):
    import hashlib

    path = write_lines(tmp_path / "rows.jsonl", ROWS)
    [source] = load(path).sources
    assert (source.path, source.bytes) == (str(path), path.stat().st_size)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_with_several_splits_needs_one_named(tmp_path):
    write_lines(tmp_path / "train-00000.jsonl", ROWS[:2])
    write_lines(tmp_path / "test-00000.jsonl", ROWS[2:])
    with pytest.raises(InputError, match=r"holds the splits test, train; choose one with --split"):
        load(tmp_path)
    assert prompts(load(tmp_path, split="train")) == EXPECTED[:2]
    with pytest.raises(InputError, match="split 'dev' not found; there are: test, train"):
        load(tmp_path, split="dev")


def test_the_folders_of_a_hive_partition_are_columns(tmp_path):
    for place, rows in (("lang=en/year=2024", ROWS[:2]), ("lang=d%20e/year=__HIVE_DEFAULT_PARTITION__", ROWS[2:])):
        (tmp_path / "pool" / place).mkdir(parents=True)
        pl.DataFrame([{**row, "year": "own"} for row in rows]).write_parquet(tmp_path / "pool" / place / "0.parquet")
    dataset = load(tmp_path / "pool")
    assert dataset.column_names == ["prompt", "completion", "year", "lang"]
    assert dataset.column("lang").to_list() == ["d e"] * 4 + ["en"] * 2
    assert dataset.column("year").unique().to_list() == ["own"]
    kept = dataset.write([0, 5], tmp_path, "kept")
    assert pl.read_parquet(kept).rows() == [("p2", "c2", "own", "d e"), ("p1", "c1", "own", "en")]


def test_the_value_of_an_empty_hive_partition_is_null(tmp_path):
    (tmp_path / "lang=__HIVE_DEFAULT_PARTITION__").mkdir()
    pl.DataFrame(ROWS).write_parquet(tmp_path / "lang=__HIVE_DEFAULT_PARTITION__" / "0.parquet")
    assert load(tmp_path).column("lang").to_list() == [None] * len(ROWS)


def test_splits_in_folders_of_a_hive_partition_are_never_mixed(tmp_path):
    write_lines(tmp_path / "split=train" / "0.jsonl", ROWS[:2])
    write_lines(tmp_path / "split=test" / "0.jsonl", ROWS[2:])
    with pytest.raises(InputError, match="holds the splits test, train"):
        load(tmp_path)
    assert prompts(load(tmp_path, split="train")) == EXPECTED[:2]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / "rows.jsonl", ROWS)
    for source in ("~/rows.jsonl", ["~/rows.jsonl"], "~/r*.jsonl"):
        assert prompts(load(source)) == EXPECTED


@pytest.mark.parametrize("address", ["abfs://example/rows.jsonl", "ftp://me:hunter2@host/rows.jsonl"])
def test_an_address_is_no_missing_file(address):
    with pytest.raises(InputError, match="must be a path, or an address that begins with s3, gs") as raised:
        load(address)
    assert "hunter2" not in str(raised.value)


def test_a_dataset_is_not_loaded_again():
    with pytest.raises(InputError, match="rows are already loaded, got a Dataset"):
        load(load(ROWS))


def test_a_folder_of_several_kinds_or_without_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match="found none"):
        load(tmp_path)
    write_lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.csv").write_text("text\na\n")
    with pytest.raises(InputError, match=r"found \.csv, \.jsonl"):
        load(tmp_path)


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path):
    write_lines(tmp_path / "alpaca.jsonl", ROWS)
    with pytest.raises(InputError, match=r"no such file; did you mean 'alpaca.jsonl'"):
        load(tmp_path / "alpacca.jsonl")
    with pytest.raises(InputError, match="the folder .* does not exist"):
        load(tmp_path / "nowhere" / "a.jsonl")
    with pytest.raises(InputError, match="no file matches"):
        load(str(tmp_path / "*.csv"))
    with pytest.raises(InputError, match="named twice"):
        load([tmp_path / "alpaca.jsonl", tmp_path / "alpaca.jsonl"])


class Piped:
    def __init__(self, content):
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize(
    "content", [json.dumps(ROWS, indent=1), "\n".join(map(json.dumps, ROWS))], ids=["array", "lines"]
)
def test_standard_input_is_read(monkeypatch, tmp_path, content):
    monkeypatch.setattr(sys, "stdin", Piped(content.encode()))
    dataset = load("-")
    assert prompts(dataset) == EXPECTED
    assert dataset.frame["file"].cast(pl.String)[0] == dataset.sources[0].name == "<stdin>"
    assert dataset.rows([5, 0]) == [ROWS[5], ROWS[0]]
    assert dataset.write([0], tmp_path, "subset").suffix == (".json" if content.startswith("[") else ".jsonl")


def test_frames_tables_lists_and_iterators_are_read():
    pandas = pytest.importorskip("pandas")
    table = pyarrow.Table.from_pylist(ROWS)
    sources = [ROWS, iter(ROWS), table, *table.to_batches(), pl.DataFrame(ROWS), pl.LazyFrame(ROWS)]
    sources.append(pandas.DataFrame(ROWS))
    names = ["<list>", "<list>", "<arrow>", "<arrow>", "<polars>", "<polars>", "<pandas>"]
    for source, name in zip(sources, names, strict=True):
        dataset = load(source)
        assert prompts(dataset) == EXPECTED
        assert dataset.rows([1]) == [ROWS[1]]
        assert dataset.sources[0].path == name
        assert dataset.fingerprint == load(ROWS).fingerprint


def test_a_pandas_frame_of_mixed_types_is_read():
    pandas = pytest.importorskip("pandas")
    dataset = load(pandas.DataFrame({"text": ["a", 5, "c"], "label": ["x", "y", "z"]}, dtype=object))
    assert dataset.frame["prompt"].to_list() == ["a", "c"]
    assert dataset.rejected["reason"].to_list() == ["field 'text' must be text, found a number"]


def test_values_that_json_cannot_hold_are_refused():
    with pytest.raises(InputError, match="row 1 does not"):
        load([ROWS[0], {"prompt": "a", "completion": {1, 2}}])
    with pytest.raises(InputError, match="a path, a frame"):
        load(5)
    with pytest.raises(InputError, match="an empty list"):
        load([])


def test_a_folder_of_save_to_disk_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.select([3, 1]).save_to_disk(tmp_path / "one")
    assert prompts(load(tmp_path / "one")) == ["p3", "p1"]
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "dict")
    with pytest.raises(InputError, match="has train, test; choose one with --split"):
        load(tmp_path / "dict")
    with pytest.raises(NotFoundError, match="did you mean 'train'"):
        load(tmp_path / "dict", split="trian")
    dataset = load(tmp_path / "dict", split="train")
    assert prompts(dataset) == EXPECTED
    written = dataset.write([4, 0], tmp_path, "subset")
    assert datasets.Dataset.from_file(str(written)).to_list() == [ROWS[4], ROWS[0]]


@pytest.mark.parametrize("kind", [pl.Object, pl.Int128])
def test_polars_columns_that_arrow_does_not_have_are_refused(kind):
    frame = pl.DataFrame({"text": ["a"]}).with_columns(pl.Series("x", [7], dtype=kind))
    with pytest.raises(InputError, match=rf"<polars>: .* 'x' holds {kind}.*frame\.drop\('x'\)"):
        load(frame)


def test_rows_become_a_dataset_with_the_features_they_had():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    dataset = to_hub_dataset(load(data).take([2, 0]), needed_by="test")
    assert (dataset.features, dataset["text"][:], dataset["label"][:]) == (features, ["c", "a"], [1, 1])
    mixed = load([{"text": "a", "x": "text"}, {"text": "b", "x": ["list"]}])
    with pytest.raises(InputError, match="test: every column must hold values of one type"):
        to_hub_dataset(mixed, needed_by="test")


def test_objects_of_datasets_are_read():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    assert prompts(load(data.select([5, 2]))) == ["p5", "p2"]
    splits = datasets.DatasetDict({"train": data, "test": data})
    with pytest.raises(InputError, match="choose one with --split"):
        load(splits)
    assert prompts(load(splits, split="test")) == EXPECTED
    with pytest.raises(InputError, match="got a stream"):
        load(data.to_iterable_dataset())


def test_a_hub_id_that_cannot_be_reached_is_one_sentence(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(path, name=None, split=None):
        assert (path, name, split) == ("owner/name", "en", "train")
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub (OfflineModeIsEnabled)\nmore")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match="owner/name: the Hub dataset must be reachable, got 'Couldn't") as caught:
        load("owner/name", config="en", split="train")
    assert "\n" not in str(caught.value)


def test_a_hub_dataset_is_read(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(ROWS))
    dataset = load("owner/name")
    assert prompts(dataset) == EXPECTED
    assert dataset.sources[0].path == "hub:owner/name"


def test_a_hub_id_without_datasets_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[hub\]'"):
        load("owner/name")


def test_loading_imports_no_heavy_package():
    import subprocess

    code = (
        "import sys, thresher.dataset as d; d.load([{'text': 'a'}]);"
        "bad = {'torch', 'transformers', 'pandas', 'datasets', 'numba', 'sklearn'} & set(sys.modules);"
        "sys.exit(', '.join(bad) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_split_and_config_are_refused_where_they_mean_nothing(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", ROWS)
    for source, arguments in ((path, {"split": "train"}), (path, {"config": "en"}), (ROWS, {"split": "train"})):
        with pytest.raises(SettingsError, match="is only for a Hub dataset"):
            load(source, **arguments)


def test_folders_named_after_splits_are_told_apart(tmp_path):
    write_lines(tmp_path / "train" / "0.jsonl", ROWS[:2])
    write_lines(tmp_path / "test" / "0.jsonl", ROWS[2:])
    with pytest.raises(InputError, match="holds the splits test, train"):
        load(tmp_path)
    assert prompts(load(tmp_path, split="test")) == EXPECTED[2:]


@pytest.fixture
def result(tmp_path):
    """Give a folder of shards with a result of thresher in it."""
    write_lines(tmp_path / "shards" / "a-0.jsonl", ROWS)
    folder = tmp_path / "shards" / "chosen"
    write_lines(folder / "subset.jsonl", ROWS[:2])
    write_lines(folder / "rejected.jsonl", [{"file": "a", "line": 1}])
    pl.DataFrame({"row_id": ["a"]}).write_parquet(folder / "scores.parquet")
    (folder / "manifest.json").write_text(json.dumps({"identity": "one"}))
    return folder


def test_a_result_inside_a_folder_of_shards_is_no_shard(result):
    assert prompts(load(result.parent)) == EXPECTED


def test_of_a_folder_that_select_wrote_the_kept_rows_are_read(result):
    assert prompts(load(result)) == EXPECTED[:2]


def test_other_text_on_standard_input_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Piped(b"text,label\na,b\n"))
    with pytest.raises(InputError, match="standard input must be JSON lines or a JSON array: give other formats as a"):
        load("-")


def test_frames_of_equal_size_and_other_values_have_other_hashes():
    frames = [pl.DataFrame({"text": ["a", "b"], "source": source}) for source in (["x", "y"], ["y", "x"], ["x", "y"])]
    first, second, third = [load(frame).sources[0].sha256 for frame in frames]
    assert first == third != second


def test_a_file_and_a_link_to_it_are_one_file(tmp_path):
    write_lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    with pytest.raises(InputError, match=r"each file is read once, .*b\.jsonl is named twice"):
        load(tmp_path)
    assert prompts(load(tmp_path / "b.jsonl")) == EXPECTED


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.jsonl"
    with open(path, "w") as file:
        file.write("{}")
    with pytest.raises(InputError, match="the whole path must be UTF-8"):
        load(os.fsdecode(path))


def test_a_table_with_a_column_twice_is_refused(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet: the columns of a table must differ, found 'text' twice"):
        load(tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="<pandas>: the columns of a frame must differ, found 'text' twice"):
        load(pandas.DataFrame([["a", "b"]], columns=["text", "text"]))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]"])
def test_an_empty_file_beside_others_is_skipped_and_reported(tmp_path, content):
    folder = tmp_path / "parts"
    folder.mkdir()
    suffix = "json" if content == b"[]" else "jsonl"
    (folder / f"a.{suffix}").write_bytes(content)
    (folder / f"b.{suffix}").write_text('{"text": "t", "label": "x"}\n')
    rows = load(folder)
    assert rows.frame["response"].to_list() == ["x"]
    assert rows.notes == (f"1 file is empty and was skipped: {folder}/a.{suffix}",)
    from thresher.selection.distributed import InProcess, select_distributed
    from thresher.selection.request import SelectCall

    call = SelectCall.of_options(str(folder), "random", {"budget": 1}, None)
    there = select_distributed(InProcess(), call, tmp_path / "there").manifest.content
    assert there["reading_notes"] == list(rows.notes)
    (folder / f"b.{suffix}").write_bytes(content)
    with pytest.raises(InputError, match="rows are required, found none"):
        load(folder)


def test_an_empty_table_beside_others_is_skipped(tmp_path):
    pl.DataFrame({"text": ["t"], "label": ["x"]}).write_parquet(tmp_path / "b.parquet")
    pl.DataFrame({"text": [], "label": []}, schema={"text": pl.String, "label": pl.String}).write_parquet(
        tmp_path / "a.parquet"
    )
    (tmp_path / "c.parquet").write_bytes(b"")
    assert load(tmp_path).notes == (f"2 files are empty and were skipped: {tmp_path}/a.parquet, {tmp_path}/c.parquet",)


def test_what_is_nearly_rows_is_refused_with_what_to_give():
    def generate():
        yield from ROWS

    assert prompts(load(generate())) == EXPECTED
    with pytest.raises(InputError, match="got the function 'generate'; call it"):
        load(generate)
    with pytest.raises(InputError, match="got a Series of polars, which is one column; give the frame"):
        load(pl.Series("text", ["a"]))
    with pytest.raises(InputError, match="got a Series of pandas"):
        load(pytest.importorskip("pandas").Series(["a"]))
    with pytest.raises(InputError, match=r"got a dict; give a list of dicts, one per row, or polars.DataFrame\(dict\)"):
        load({"text": ["a"]})
    with pytest.raises(InputError, match="a row must be a JSON object, found text"):
        load(text for text in ["a", "b"])
