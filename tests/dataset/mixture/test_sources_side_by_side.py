"""Several sources, each read in its own way, are one dataset in common columns."""

import json

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.dataset import load
from thresher.dataset.mixture.parsing import merge_repeated, parse_source
from thresher.errors import InputError, SettingsError
from thresher.subset.subset import open_subset, read_subset_rows


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path):
    write_lines(
        tmp_path / "alpaca.jsonl",
        [
            {"instruction": f"Ask {i}", "input": "about it" if i % 2 else "", "output": f"Say {i}", "topic": "x"}
            for i in range(6)
        ],
    )
    (tmp_path / "quiz.csv").write_text("q,a,good\n" + "".join(f"Quest {i},Reply {i},{i % 2}\n" for i in range(6)))
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    write_lines(
        tmp_path / "chat.jsonl",
        [{"messages": [*turns, {"role": "assistant", "content": f"Hello {i}"}]} for i in range(3)],
    )
    return tmp_path


def quiz(folder, **settings):
    return th.Source(folder / "quiz.csv", columns={"prompt": "q", "response": "a"}, wanted="good", **settings)


def test_other_columns_become_prompt_and_response(folder):
    rows = load([folder / "alpaca.jsonl", quiz(folder)])
    assert (rows.kind, len(rows), rows.n_read) == ("sft", 9, 12)
    assert rows.rejected_by_reason == {"the row is not wanted: field 'good' is false": 3}
    assert rows.rows([1, 6]) == [
        {"prompt": "Ask 1\nabout it", "response": "Say 1", "topic": "x"},
        {"prompt": "Quest 1", "response": "Reply 1"},
    ]
    assert rows.column("topic").to_list() == ["x"] * 6 + [None] * 3
    assert rows.messages([8])[0].messages[-1] == {"role": "assistant", "content": "Reply 5"}
    assert [one.name for one in rows.readings] == [str(folder / "alpaca.jsonl"), str(folder / "quiz.csv")]


def test_ids_are_those_of_each_source_alone_and_of_a_copy(folder, tmp_path):
    parts = [folder / "alpaca.jsonl", quiz(folder)]
    rows = load(parts)
    assert rows.frame["row_id"].to_list() == [i for part in parts for i in load(part).frame["row_id"]]
    copy = rows.write(np.array([7, 0]), tmp_path, "copy")
    assert copy.suffix == ".jsonl"
    assert load(copy).frame["row_id"].to_list() == [rows.frame["row_id"][i] for i in (7, 0)]


def test_one_source_of_conversations_makes_all_rows_conversations(folder, tmp_path):
    rows = load([quiz(folder), folder / "chat.jsonl", folder / "alpaca.jsonl"])
    assert set(rows.schema.columns) == {"messages", "tools"}
    assert rows.rows([0])[0]["messages"] == [
        {"role": "user", "content": "Quest 1"},
        {"role": "assistant", "content": "Reply 1"},
    ]
    assert load(rows.write(np.arange(len(rows)), tmp_path, "copy")).frame["row_id"].equals(rows.frame["row_id"])


def test_sources_that_are_read_alike_stay_as_they_are(folder, tmp_path):
    more = write_lines(tmp_path / "more.jsonl", [{"instruction": "New", "input": "", "output": "Old", "extra": 1}])
    rows = load([th.Source(folder / "alpaca.jsonl", schema="alpaca"), th.Source(more)])
    assert rows.schema.name == "alpaca"
    copy = rows.write(np.array([6, 1]), tmp_path, "copy")
    lines = (folder / "alpaca.jsonl").read_text().splitlines()
    assert copy.read_text() == more.read_text() + lines[1] + "\n"


def test_a_row_of_an_earlier_source_is_numbered_as_in_one_file(tmp_path):
    first = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "r"}])
    second = write_lines(tmp_path / "b.jsonl", [{"question": "p", "answer": "r"}, {"question": "p", "answer": "r"}])
    ids = load([th.Source(first), th.Source(second)]).frame["row_id"].to_list()
    assert [one.removeprefix(ids[0]) for one in ids] == ["", "-1", "-2"]


def test_an_id_column_names_the_rows_of_all_sources(tmp_path):
    first = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "r", "key": 1}])
    second = write_lines(
        tmp_path / "b.jsonl", [{"question": "q", "answer": "s", "key": 1}, {"question": "t", "answer": "u", "key": 2}]
    )
    rows = load([th.Source(first), th.Source(second)], id_column="key")
    assert rows.frame["row_id"].to_list() == ["1", "2"]
    assert rows.rejected["reason"].to_list() == ["the id in column 'key' was used by an earlier row"]
    assert rows.rows([1]) == [{"prompt": "t", "response": "u", "key": 2}]


def test_class_names_of_each_source_are_texts(tmp_path):
    import datasets

    features = datasets.Features({"sentence": datasets.Value("string"), "y": datasets.ClassLabel(names=["neg", "pos"])})
    named = datasets.Dataset.from_dict({"sentence": ["a", "b"], "y": [1, 0]}, features=features)
    other = pl.DataFrame({"text": ["c"], "label": ["pos"]})
    rows = load([th.Source(named, columns={"text": "sentence", "label": "y"}), th.Source(other)])
    assert rows.rows([0, 1, 2]) == [{"text": t, "label": y} for t, y in (("a", "pos"), ("b", "neg"), ("c", "pos"))]
    alike = load([th.Source(named.rename_columns({"sentence": "text", "y": "label"})), th.Source(other)])
    assert [row["label"] for row in alike.rows([0, 1, 2])] == ["pos", "neg", "pos"]
    assert load(alike.write(np.arange(3), tmp_path, "copy")).frame["response"].to_list() == ["pos", "neg", "pos"]
    bare = th.Source(pl.DataFrame({"text": ["c"], "label": [1]}), name="bare")
    with pytest.raises(InputError, match="bare: the numbers of its labels need names of classes"):
        load([th.Source(named, columns={"text": "sentence", "label": "y"}), bare])


def test_systems_histories_and_tools_keep_their_meaning(tmp_path):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    first = [
        {"instruction": "i", "input": "", "output": "o", "system": "S", "history": [["a", "b"]]},
        {"instruction": "j", "input": "", "output": "o"},
    ]
    second = [{"question": "q", "answer": "a", "tools": tools}, {"question": "r", "answer": "a"}]
    parts = [write_lines(tmp_path / "a.jsonl", first), write_lines(tmp_path / "b.jsonl", second)]
    chat = write_lines(
        tmp_path / "c.jsonl",
        [{"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}], "system": "T"}],
    )
    for sources in (parts, [*parts, chat], [chat, *parts]):
        rows = load([th.Source(path) for path in sources])
        alone = [each for path in sources for each in load(path).messages(range(len(load(path))))]
        assert rows.messages(range(len(rows))) == alone
        copy = load(rows.write(np.arange(len(rows)), tmp_path, "copy"), schema=rows.schema)
        assert copy.frame["row_id"].equals(rows.frame["row_id"])
        assert copy.messages(range(len(rows))) == alone


def test_a_masked_row_stays_in_the_common_columns(folder, tmp_path):
    from thresher.dataset.masked_rows import replace_rows

    rows = load([folder / "alpaca.jsonl", quiz(folder)])
    changed = replace_rows(rows, {7: {**rows.rows([7])[0], "prompt": "masked"}})
    assert changed.frame["prompt"][7] == "masked"
    assert load(changed.write(np.array([7]), tmp_path, "copy")).frame["prompt"].to_list() == ["masked"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("quiz.csv:wanted=good", "columns of a known schema are required, found the columns 'q', 'a', 'good'"),
        ("quiz.csv:prompt=q,response=b", "column 'b' is required, found 'q', 'a', 'good'"),
        ("quiz.csv:text=q,label=a", "must hold rows of one kind, found classification .* beside sft .* in .*alpaca"),
        ("quiz.csv:prompt=q,response=a,wanted=a", r"quiz.csv: at least one usable row is required, found none in 6"),
        ("alpaca.jsonl:schema=alpaca", "each file is read once, .*alpaca.jsonl is in two sources"),
    ],
)
def test_a_source_that_does_not_fit_is_named(folder, source, message):
    with pytest.raises(InputError, match=message):
        load([str(folder / "alpaca.jsonl"), f"{folder}/{source}"])


def test_a_subset_of_several_sources_finds_its_pool_again(folder, tmp_path):
    sources = [folder / "alpaca.jsonl", quiz(folder)]
    subset = th.select(load(sources), "random", budget=4, out=tmp_path / "chosen")
    content = subset.manifest.content["schema"]
    assert [(one["n_files"], one["name"], one.get("wanted")) for one in content["sources"]] == [
        (1, "alpaca", None),
        (1, "mapped", "good"),
    ]
    assert open_subset(tmp_path / "chosen").pool.fingerprint == subset.pool.fingerprint
    assert len(read_subset_rows(tmp_path / "chosen")) == 4
    assert th.select(load(sources), "random", budget=4, out=tmp_path / "chosen").kept.tolist() == subset.kept.tolist()


@pytest.mark.parametrize(
    ("text", "rows", "settings"),
    [
        ("pool.jsonl", "pool.jsonl", {}),
        ("owner/name:train", "owner/name", {"split": "train"}),
        ("owner/name:en:train[:10%]", "owner/name", {"config": "en", "split": "train[:10%]"}),
        ("owner/name:train:schema=text", "owner/name", {"split": "train", "schema": "text"}),
        ("a b.csv:prompt=t+u,response=v", "a b.csv", {"columns": {"prompt": "t+u", "response": "v"}}),
        ("b.csv:columns=text=t,label=u", "b.csv", {"columns": {"text": "t", "label": "u"}}),
        ("b.csv:wanted=kto_tag", "b.csv", {"wanted": "kto_tag"}),
        ("-:text=t", "-", {"columns": {"text": "t"}}),
        ("folder/x.jsonl:train", "folder/x.jsonl:train", {}),
        ("https://a.b/c:d=e", "https://a.b/c:d=e", {}),
        ("https://a.b:80/c?d=e", "https://a.b:80/c?d=e", {}),
        ("s3://a/b.jsonl:wanted=kto_tag", "s3://a/b.jsonl", {"wanted": "kto_tag"}),
    ],
)
def test_a_text_names_a_source_and_its_settings(text, rows, settings):
    (source,) = parse_source(text)
    assert (source.rows, source.settings) == (rows, settings)


def test_a_file_of_that_very_name_is_that_file(tmp_path):
    path = write_lines(tmp_path / "odd:text=t.jsonl", [{"text": "a"}])
    assert parse_source(str(path))[0].settings == {}
    assert len(load(str(path))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b.csv:promt=q", "unknown key 'promt'.*did you mean 'prompt'"),
        ("b.csv:prompt=q,response", "must be SOURCE:KEY=VALUE"),
        ("b.csv:prompt=q,prompt=r", "prompt is given twice"),
        ("o/n:train:split=test", "split is given twice"),
        ("b.csv:schema=text,text=t", "schema and columns exclude each other"),
    ],
)
def test_a_text_that_says_nonsense_is_refused(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_source(text)


def test_several_texts_may_say_something_of_one_source():
    texts = ["a.jsonl", "b.csv:prompt=q,response=a", "b.csv:wanted=good", "o/n:train", "o/n:test"]
    sources = merge_repeated(texts)
    assert [(str(one.rows), one.settings) for one in sources] == [
        ("a.jsonl", {}),
        ("b.csv", {"columns": {"prompt": "q", "response": "a"}, "wanted": "good"}),
        ("o/n", {"split": "train"}),
        ("o/n", {"split": "test"}),
    ]


def test_a_toml_file_lists_sources(folder):
    (folder / "sources.toml").write_text(
        '[[sources]]\npath = "alpaca.jsonl"\n[[sources]]\nfiles = ["quiz.csv"]\nname = "quiz"\nwanted = "good"\n'
        'columns = {prompt = "q", response = "a"}\n'
    )
    rows = load(folder / "sources.toml")
    assert len(rows) == 9
    assert rows.readings[1].name == "quiz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[sources]]\n", "sources.1: must have exactly one of path, files, hub, found 0"),
        ('[[sources]]\npath = "a"\nshema = "text"\n', "unknown key 'shema'.*did you mean 'schema'"),
        ("[[sources]]\npath = 3\n", "path must be text or a list of texts, got 3"),
        ('[[sources]]\npath = "a"\ncolumns = "q"\n', "columns must be a table"),
        ("[rows]\n", r"has \[\[sources\]\] alone, found 'rows'"),
        ('[[sources]]\npath = "a"\n[output]\nfolder = "x"\n', "a job file is for 'thresher curate run'"),
        ("sources = [", "must be TOML"),
        ("", r"at least one \[\[sources\]\] is required"),
    ],
)
def test_a_toml_file_that_says_something_else_is_refused(tmp_path, text, message):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(th.ThresherError, match=message):
        load(tmp_path / "s.toml")


def test_a_split_may_stand_behind_a_folder(tmp_path):
    for name in ("train", "test"):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": name}])
    assert load(f"{tmp_path}:test").frame["response"].to_list() == ["test"]
    with pytest.raises(SettingsError, match="the split is given twice"):
        load(f"{tmp_path}:test", split="train")


def test_options_are_for_the_sources_that_do_not_say_otherwise(folder, tmp_path):
    more = tmp_path / "more.csv"
    more.write_text("q,a\nWhy,Because\n")
    sources = [quiz(folder), th.Source(more), th.Source(folder / "alpaca.jsonl", schema="alpaca")]
    rows = load(sources, columns={"prompt": "q", "response": "a"})
    assert [one.schema.name for one in rows.readings] == ["mapped", "mapped", "alpaca"]
    assert len(rows) == 10
