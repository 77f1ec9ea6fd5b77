"""Sources of a job that are read each in its own way, and what snapshots hold of them."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.jobs.inspection import check_job

PLAIN = 'files = ["src/*.jsonl"]\n'
QUIZ = 'name = "quiz"\nfiles = ["quiz/*.csv"]\ncolumns = {prompt = "q", response = "a"}\nwanted = "good"\n'
CHAT = 'name = "chat"\nfiles = ["chat/*.jsonl"]\nschema = "messages"\n'


def mix(*sources):
    return "\n[[sources]]\n".join(sources)


def add_quiz(kit, name, numbers, header="q,a,good"):
    (kit.root / "quiz").mkdir(exist_ok=True)
    lines = [f"Where is {i}?,There {i},{i % 2}" for i in numbers]
    (kit.root / "quiz" / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")


def add_chat(kit, name, numbers, n_questions=1):
    (kit.root / "chat").mkdir(exist_ok=True)
    with open(kit.root / "chat" / f"{name}.jsonl", "w") as file:
        for i in numbers:
            roles = ["system", *["user", "assistant"] * n_questions]
            turns = [{"role": role, "content": f"{role} {i}"} for role in roles]
            file.write(json.dumps({"messages": turns}) + "\n")


def test_sources_get_common_columns_night_by_night(kit, rows):
    kit.write(source=mix(PLAIN, QUIZ))
    kit.add("a", rows(4, 1))
    add_quiz(kit, "a", range(6))
    result = kit.run()
    assert (result.report["counts"]["entered"], result.report["counts"]["unusable"]) == (7, 3)
    table = kit.table()
    assert {"prompt", "response"} <= set(table.columns)
    assert not {"q", "a", "good", "completion"} & set(table.columns)
    assert table.filter(pl.col("thresher_source") == "quiz")["prompt"].to_list() == [
        f"Where is {i}?" for i in (1, 3, 5)
    ]
    assert kit.run().outcome == "nothing-new"
    add_quiz(kit, "b", range(4, 9))
    result = kit.run()
    assert (result.report["counts"]["entered"], result.report["counts"]["known"]) == (1, 1)
    assert kit.table()["prompt"].null_count() == 0
    kit.add("b", rows(2, 3))
    assert kit.run().report["counts"]["entered"] == 2
    assert len(load(kit.out / "latest")) == len(kit.table()) == 10


def test_conversations_make_all_rows_conversations_also_before_they_arrive(kit, rows):
    kit.write(source=mix(PLAIN, CHAT))
    kit.add("a", rows(3, 1))
    (kit.root / "chat").mkdir()
    kit.run()
    assert set(kit.table().columns[:1]) == {"messages"}
    add_chat(kit, "a", range(2))
    kit.run()
    kept = load(kit.out / "latest")
    assert [len(one.messages) for one in kept.messages(range(5))] == [2, 2, 2, 3, 3]


def test_a_source_that_comes_later_is_mapped_into_the_columns_that_are_there(kit, rows):
    kit.write(source=PLAIN)
    kit.add("a", rows(3, 1))
    kit.run()
    kit.write(source=mix(PLAIN, QUIZ, CHAT))
    add_quiz(kit, "a", range(4))
    add_chat(kit, "a", range(2), n_questions=2)
    with pytest.raises(
        InputError, match=r"source chat: .*none in its 2 rows \(2 x a conversation of more than a quest"
    ):
        kit.run()
    add_chat(kit, "a", range(1))
    result = kit.run()
    assert result.report["counts"]["entered"] == 3
    table = kit.table()
    assert table["completion"].to_list()[3:] == ["There 1", "There 3", "assistant 0"]
    assert table["system"].to_list() == [None] * 5 + ["system 0"]
    kit.write(source=mix(PLAIN, QUIZ, 'files = ["quiz/*.csv"]\ncolumns = {text = "q", label = "a"}'))
    for refused in (kit.run, lambda: check_job(kit.file)):
        with pytest.raises(SettingsError, match="source files-3 must hold rows as the snapshots .* found classific"):
            refused()


def test_a_killed_first_night_and_one_night_give_the_same(kit, rows, tmp_path):
    from tests.jobs.conftest import JobKit

    other = JobKit(tmp_path / "other")
    for one in (kit, other):
        one.write(source=mix(PLAIN, QUIZ, CHAT))
        add_folder = one.root / "chat"
        add_folder.mkdir()
        one.add("a", rows(5, 1))
        add_quiz(one, "a", range(4))
        add_chat(one, "a", range(3))
    kit.run(dry_run=True)
    kit.run()
    other.run()
    assert kit.table().equals(other.table())


def test_a_source_of_which_nothing_is_usable_fails_the_run(kit, rows):
    kit.write(source=mix(PLAIN, QUIZ))
    kit.add("a", rows(4, 1))
    add_quiz(kit, "a", range(3), header="question,answer,good")
    with pytest.raises(InputError, match="quiz"):
        kit.run()
    assert not (kit.out / "latest").exists()
    add_quiz(kit, "a", [0, 2, 4])
    with pytest.raises(InputError, match=r"source quiz: .*found none in its 3 rows \(3 x the row is not wanted"):
        kit.run()
    add_quiz(kit, "b", [1])
    assert kit.run().report["counts"]["entered"] == 5


def test_a_night_may_be_empty_or_unusable_where_the_source_was_usable(kit, rows):
    kit.write(source=mix(PLAIN, QUIZ))
    kit.add("a", rows(4, 1))
    add_quiz(kit, "a", range(3))
    kit.run()
    add_quiz(kit, "b", [])
    (kit.root / "quiz" / "c.csv").write_text("")
    add_quiz(kit, "d", [0, 2])
    kit.add("b", rows(1, 2))
    assert kit.run().report["counts"]["entered"] == 1
    assert sum("holds no usable row" in message for message in kit.warnings()) >= 2
    (kit.root / "quiz" / "a.csv").unlink()
    with pytest.raises(InputError, match=r"source quiz: .*found none"):
        kit.run(full=True)


def test_an_empty_file_alone_is_no_reason_to_fail(kit, rows):
    kit.write(source=mix(PLAIN, QUIZ))
    kit.add("a", rows(4, 1))
    (kit.root / "quiz").mkdir()
    (kit.root / "quiz" / "a.csv").write_text("")
    assert kit.run().report["counts"]["entered"] == 4


def test_a_mark_of_all_rows_stays_beside_them(kit):
    kit.write(more='[rows]\nwanted = "label"\n')
    for night in range(2):
        marked = [{"prompt": f"p {night} {i}", "completion": f"c {i}", "label": i > 0} for i in range(3)]
        kit.add(f"night{night}", marked)
        assert kit.run().report["counts"]["entered"] == 2
    assert kit.table()["label"].to_list() == [True] * 4
    assert kit.manifest()["schema"]["wanted"] == "label"
    assert len(load(kit.out / "latest")) == 4


def write_labels(path, labels, names, first=0):
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"text": [f"text {first + i}" for i in range(len(labels))], "label": labels})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


def test_snapshots_hold_names_of_classes(kit, monkeypatch):
    kit.write(source='files = ["src/*.parquet"]')
    write_labels(kit.root / "src" / "a.parquet", [0, 1, 0], ["neg", "pos"])
    kit.run()
    assert kit.table()["label"].to_list() == ["neg", "pos", "neg"]
    write_labels(kit.root / "src" / "b.parquet", [0, 1], ["pos", "neg"], first=5)
    kit.run()
    assert kit.table()["label"].to_list() == ["neg", "pos", "neg", "pos", "neg"]
    assert load(kit.out / "latest").frame["response"].to_list() == kit.table()["label"].to_list()
    assert json.loads((kit.out / "latest" / "profile.json").read_bytes())["snapshot"]["labels"] == {"neg": 3, "pos": 2}


def test_numbers_of_an_older_snapshot_get_the_names_that_files_give_now(kit, monkeypatch):
    from dataclasses import replace

    from thresher.jobs.sources.source_settings import SourceSettings

    kit.write(source='files = ["src/*.parquet"]')
    write_labels(kit.root / "src" / "a.parquet", [0, 1, 0], ["neg", "pos"])
    with monkeypatch.context() as patch:  # as snapshots were written before
        original = SourceSettings.load
        patch.setattr(SourceSettings, "load", lambda *a, **k: replace(original(*a, **k), decoded_columns=frozenset()))
        kit.run()
    assert kit.table()["label"].to_list() == [0, 1, 0]
    write_labels(kit.root / "src" / "b.parquet", [1], ["neg", "pos"], first=5)
    kit.run()
    assert kit.table()["label"].to_list() == ["neg", "pos", "neg", "pos"]


def test_a_split_of_a_folder_of_files_is_read(kit, rows):
    kit.write(source='files = ["data"]\nsplit = "train"\n')
    for number, name in enumerate(("train", "test")):
        (kit.root / "data").mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows(3 + number, number))
        (kit.root / "data" / f"{name}.jsonl").write_text(lines)
    assert kit.run().report["counts"]["entered"] == 3


def test_rows_to_evaluate_on_may_have_other_columns(kit, rows):
    own = rows(4, 1)
    kit.write(source=PLAIN, steps="")
    text = kit.file.read_text()
    kit.file.write_text('eval = ["test.csv:prompt=q,response=a"]\n' + text)
    kit.add("a", own)
    (kit.root / "test.csv").write_text(f"q,a\n{own[0]['prompt']},{own[0]['completion']}\n")
    counts = kit.run().report["counts"]
    assert counts["entered"] == 3
    kit.file.write_text('eval = ["test.csv:prompt=q,response=b"]\n' + text)
    with pytest.raises(InputError, match="column 'b' is required"):
        kit.run()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('files = ["a"]\nshema = "text"', "unknown key 'shema' .*did you mean 'schema'"),
        ('files = ["a"]\nschema = "alpacca"', "sources.1.schema: must be one of .*did you mean 'alpaca'"),
        ('files = ["a"]\ncolumns = {promt = "q", response = "a"}', "unknown role 'promt'"),
        ('files = ["a"]\nschema = "text"\ncolumns = {text = "q"}', "schema and columns exclude each other"),
        ('files = ["a"]\nconfig = "en"', "config is of a Hub dataset"),
        ('sql = "select 1"\nurl = "sqlite:///a.db"\nsplit = "train"', "split is of a Hub dataset or of files"),
    ],
)
def test_illegal_settings_of_a_source_are_told_with_their_line(kit, source, message):
    kit.write(source=source)
    with pytest.raises(SettingsError, match=f"line .*{message}"):
        check_job(kit.file)
