"""Correction: what is replaced follows from the judge in both orders, and nothing is lost."""

import inspect
import json

import numpy as np
import polars as pl
import pytest

import thresher as th
from tests.reporting.page_commands import read_page
from thresher.cli.main import main
from thresher.errors import InputError, OutputError, SettingsError
from thresher.models.generation import load as asked
from thresher.models.generation.generator import Generation, OptionProbabilities

ROWS = [
    {"prompt": "capital of France?", "completion": "Berlin", "by": "x"},
    {"prompt": "capital of Italy?", "completion": "Rome", "by": "y"},
    {"prompt": "add 2 and 3", "completion": "6", "by": "z"},
    {"prompt": "say nothing", "completion": "ok", "by": "z"},
    {"prompt": "tell a tale", "completion": "once", "by": "z"},
    {"prompt": "too long", "completion": "yes", "by": "z"},
]
WRITES = {
    "France": Generation("Paris"),
    "Italy": Generation(" Rome "),
    "add": Generation("5"),
    "nothing": Generation(""),
    "tale": Generation("Once upon", is_cut=True),
    "long": Generation(None, problem="no room"),
}
LIKES = {"Paris": (0.95, 0.75), "5": (0.9, 0.6)}  # the candidate, shown first and second


class Writer:
    name, fingerprint = "writer", "w"

    def generate(self, conversations, decoding, *, stage, context):
        return [[next(said for word, said in WRITES.items() if word in conversation)] for conversation in conversations]

    def notes(self):
        return []


class Judge:
    name, fingerprint = "judge", "j"

    def score_options(self, conversations, options, *, stage, context):
        shares = np.full((len(conversations), 2), np.nan)
        problems = [None] * len(conversations)
        for i, conversation in enumerate(conversations):
            text = json.loads(conversation)["messages"][0]["content"]
            a, b = text.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
            b = b.split("\n\nWhich")[0]
            candidate = a if a in LIKES else b
            if LIKES[candidate] is None:
                problems[i] = "unparsable"
                continue
            p = LIKES[candidate][0] if candidate == a else LIKES[candidate][1]
            shares[i] = (p, 1 - p) if candidate == a else (1 - p, p)
        return OptionProbabilities(shares, problems)

    def notes(self):
        return ["a note"]


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    monkeypatch.setattr(
        asked, "load_generator", lambda context: Writer() if context.models.model == "writer" else Judge()
    )


def corrected(rows=ROWS, **settings):
    return th.correct(rows, **{"model": "writer", "judge": "judge", **settings})


def test_an_answer_is_replaced_where_the_mean_of_both_orders_reaches_eta():
    audit = corrected(eta=0.8).audit
    assert audit["decision"].to_list() == ["replaced", "same", "kept", "no-candidate", "no-candidate", "no-candidate"]
    assert audit["confidence"].to_list()[:3] == [pytest.approx(0.85), None, pytest.approx(0.75)]
    assert audit["shown_first"][0] == pytest.approx(0.95)
    assert audit["shown_second"][0] == pytest.approx(0.75)
    assert audit["reason"].to_list()[2:] == [
        "confidence 0.750 that the candidate is better, less than 0.8",
        "the model's answer is empty",
        "the model's answer was truncated at max_new_tokens",
        "no room",
    ]
    assert corrected(eta=0.75).audit["decision"][2] == "replaced"
    assert corrected(eta=0.86).audit["decision"][0] == "kept"


def test_the_original_stays_in_its_own_column_and_other_rows_are_as_they_were():
    rows = corrected().rows
    assert rows[0] == {
        "prompt": "capital of France?", "completion": "Paris", "by": "x", "original_response": "Berlin"
    }  # fmt: skip
    assert rows[1:] == [{**row, "original_response": None} for row in ROWS[1:]]


def test_an_undecided_judge_replaces_nothing(monkeypatch):
    monkeypatch.setitem(LIKES, "Paris", None)
    result = corrected()
    assert result.audit["decision"][0] == "undecided"
    assert result.audit["reason"][0] == "unparsable"
    assert result.rows[0]["completion"] == "Berlin"


@pytest.mark.parametrize("as_text", [False, True])
def test_the_last_assistant_turn_of_a_conversation_is_replaced(as_text, tmp_path):
    conversation = [
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "hello"},
        {"from": "human", "value": "capital of France?"},
        {"from": "gpt", "value": "Berlin", "weight": 1},
    ]
    value = json.dumps(conversation) if as_text else conversation
    row = corrected([{"conversations": value, "id": 7}]).rows[0]
    turns = json.loads(row["conversations"]) if as_text else row["conversations"]
    assert turns == [*conversation[:3], {"from": "gpt", "value": "Paris", "weight": 1}]
    assert row["original_response"] == "Berlin"
    assert row["id"] == 7


def test_a_call_of_tools_is_never_replaced():
    call = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": "France"},
                {"role": "assistant", "content": None, "tool_calls": call},
            ]
        },
        {"messages": [{"role": "user", "content": "France"}, {"role": "assistant", "content": "Berlin"}]},
    ]
    assert corrected(rows).audit["decision"].to_list() == ["no-candidate", "replaced"]


def test_the_folder_is_whole_and_the_same_again(tmp_path):
    first = corrected(out=tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["audit.parquet", "manifest.json", "rejected.jsonl", "rows.jsonl"]
    lines = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == first.rows
    assert pl.read_parquet(tmp_path / "out/audit.parquet").equals(first.audit)
    before = (tmp_path / "out/manifest.json").read_bytes()
    again = corrected(out=tmp_path / "out")
    assert (tmp_path / "out/manifest.json").read_bytes() == before
    assert again.audit.equals(first.audit)
    assert again.rows == first.rows
    with pytest.raises(OutputError, match="must be new or empty"):
        corrected(out=tmp_path / "out", eta=0.9)
    counts = json.loads(before)["counts"]["decisions"]
    assert counts == {"replaced": 1, "kept": 1, "same": 1, "no-candidate": 3, "undecided": 0}


def test_the_page_shows_both_answers_and_why_others_stayed(tmp_path):
    rows = [*ROWS, {"prompt": "capital of France? <b>", "completion": "<script>alert(1)</script>", "by": "x"}]
    page, words = read_page(corrected(rows, out=tmp_path / "out").path)
    assert "2 rows of 7 (29\u00a0%) got a new answer: judge preferred that of writer" in page
    assert all(text in page for text in ("Berlin", "Paris", "no-candidate: 3", "less than 0.8"))
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert words[:3] == ["thresher", "correct", "<list>"]


def test_what_comes_out_can_be_read_and_corrected_again(tmp_path):
    corrected(out=tmp_path / "out")
    pool = th.load(tmp_path / "out/rows.jsonl")
    assert pool.frame["response"][0] == "Paris"
    again = th.correct(pool, model="writer", judge="judge", column="second")
    assert again.audit["decision"][0] == "same"
    with pytest.raises(InputError, match="already have a column 'original_response'"):
        corrected(pool)


def test_labels_and_plain_text_are_refused():
    with pytest.raises(InputError, match="found rows of kind 'classification'"):
        corrected([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])


def test_a_judge_must_be_named_where_the_model_is_no_adapter(tmp_path):
    with pytest.raises(InputError, match="is not an adapter whose base could judge; name the judge"):
        th.correct(ROWS, model="writer")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "judge"}')
    with pytest.raises(SettingsError, match=r"eta must be a number in 0\.5\.\.1, got 0\.4"):
        th.correct(ROWS, model=str(tmp_path), eta=0.4)


def test_a_damaged_adapter_and_an_address_with_a_password_are_refused_with_a_sentence(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="adapter_config.json must be JSON"):
        th.correct(ROWS, model=str(tmp_path))
    with pytest.raises(InputError) as caught:
        th.correct(ROWS, model="http://me:very-secret@127.0.0.1:9/v1")
    assert "very-secret" not in str(caught.value)


def test_the_base_of_an_adapter_judges_in_its_own_revision(tmp_path, monkeypatch):
    judges = []

    def who(context):
        judges.append(context.models.model)
        return Writer() if context.models.model == str(tmp_path) else Judge()

    monkeypatch.setattr(asked, "load_generator", who)
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "revision": "v2"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    th.correct(ROWS, model=str(tmp_path))
    assert set(judges) == {str(tmp_path), "org/base@v2"}


def test_the_base_of_an_adapter_judges(tmp_path, monkeypatch):
    models = []
    monkeypatch.setattr(
        asked,
        "load_generator",
        lambda context: (
            models.append(context.models.model) or (Judge() if context.models.model == "the-base" else Writer())
        ),
    )
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "the-base"}')
    th.correct(ROWS, model=str(tmp_path))
    assert set(models) == {str(tmp_path), "the-base"}


def test_the_command_does_what_the_function_does(tmp_path, capsys):
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = ["correct", str(pool), "--model", "writer", "--judge", "judge", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    summary = capsys.readouterr().err
    assert "writer wrote, judge judged, eta 0.8" in summary
    assert "1 replaced" in summary
    assert json.loads((tmp_path / "out/rows.jsonl").read_text().splitlines()[0])["completion"] == "Paris"


def test_the_command_has_the_names_and_defaults_of_the_function():
    from thresher.cli.correct import correct as command

    parameters = {**inspect.signature(th.load).parameters, **inspect.signature(th.correct).parameters}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in {"pool", "as_json", "quiet", "out", "sources", "dry_run"}:
            assert parameter.default == parameters[name].default, name


def test_a_real_model_and_judge_decide_every_row(tiny_llama, monkeypatch, tmp_path):
    monkeypatch.undo()
    result = th.correct(ROWS, model=str(tiny_llama), judge=str(tiny_llama), device="cpu", max_new_tokens=4, eta=0.5)
    has_confidence = result.audit["confidence"].is_not_null()
    is_judged = result.audit["decision"].is_in(["replaced", "kept"])
    assert (has_confidence == is_judged).all()
    assert len(result.rows) == len(ROWS)
