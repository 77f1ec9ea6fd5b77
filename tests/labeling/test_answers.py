"""Answers in the forms in which annotators' tools give them."""

import json

import pytest

from thresher.errors import InputError
from thresher.labeling.answers import read_answers
from thresher.labeling.exchange import list_label_values, restore_label

LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"text": "a", "thresher_row_id": "r1"},
        "annotations": [
            {"completed_by": {"email": "x@y.z"}, "was_cancelled": False, "result": [{"value": {"choices": ["red"]}}]},
            {"completed_by": 3, "was_cancelled": True, "result": [{"value": {"choices": ["blue"]}}]},
        ],
    },
    {
        "id": 2,
        "data": {"text": "b", "thresher_row_id": "r2"},
        "annotations": [{"result": [{"value": {"text": ["no"]}}]}],
    },
    {"id": 3, "data": {"text": "c", "thresher_row_id": "r3"}, "annotations": []},
]
ARGILLA = [
    {
        "id": "r1",
        "fields": {"text": "a"},
        "responses": {
            "label": [
                {"value": "red", "user_id": "u1", "status": "submitted"},
                {"value": "blue", "user_id": "u2", "status": "discarded"},
            ]
        },
    },
    {"id": "r2", "fields": {"text": "b"}, "responses": {}},
]
FORMS = {
    "rows.jsonl": (
        '{"thresher_row_id": "r1", "label": "red"}\n{"thresher_row_id": "r2", "label": ""}\n',
        [("r1", "red")],
    ),
    "min.json": (
        json.dumps([{"text": "a", "thresher_row_id": "r1", "id": 7, "label": "red", "annotator": 2}]),
        [("r1", "red")],
    ),
    "rows.csv": ('\ufeffthresher_row_id,text,label\nr1,"a, b",red\nr2,c,\n', [("r1", "red")]),
    "rows.tsv": ("row_id\tkind\nr1\tred\n", [("r1", "red")]),
    "studio.json": (json.dumps(LABEL_STUDIO), [("r1", "red"), ("r2", "no")]),
    "argilla.json": (json.dumps(ARGILLA), [("r1", "red")]),
    "flat.jsonl": (
        json.dumps({"id": "r1", "label.responses": ["red", None], "label.responses.users": ["u", "v"]}),
        [("r1", "red")],
    ),
    "numbers.jsonl": (
        '{"thresher_row_id": "r1", "label": 3}\n{"row_id": "r2", "label": 4.0}',
        [("r1", "3"), ("r2", "4")],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_gives_rows_and_labels(name, tmp_path):
    text, expected = FORMS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    answers = read_answers(tmp_path / name, "kind")
    assert [(answer.row_id, answer.label) for answer in answers] == expected


def test_who_answered_is_known_where_the_tool_says_so(tmp_path):
    (tmp_path / "studio.json").write_text(json.dumps(LABEL_STUDIO))
    assert [answer.by for answer in read_answers(tmp_path / "studio.json", "label")] == ["x@y.z", ""]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", '{"label": "x"}', "each answer must name its row, 1 do not"),
        ("a.jsonl", "{not json", "answers must be JSON"),
        ("a.json", '["x"]', "each answer must be an object"),
        ("a.jsonl", '{"id": "r", "label": ["x", "y"]}', "one label per row is required, found x, y"),
    ],
)
def test_what_is_no_answer_is_refused_in_a_sentence(name, text, problem, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=problem):
        read_answers(tmp_path / name, "label")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="answers must be readable, found 'No such file"):
        read_answers(tmp_path / "none.jsonl", "label")


def test_an_empty_label_is_not_answered_by_another_column_of_the_user():
    rows = [
        {"thresher_row_id": "r1", "label": "", "choice": "mine"},
        {"thresher_row_id": "r2", "label": "red", "choice": "mine"},
        {"thresher_row_id": "r3", "label": float("nan"), "answer": "mine"},
        {"thresher_row_id": "r4", "intent": None, "label": "mine"},
    ]
    assert [(each.row_id, each.label) for each in read_answers(rows[:3], "label")] == [("r2", "red")]
    assert read_answers(rows[3:], "intent") == []


def test_labels_are_written_as_rows_are_read():
    rows = [{"thresher_row_id": str(i), "label": value} for i, value in enumerate((True, 1.0, 0, 2.5, " a "))]
    assert [each.label for each in read_answers(rows, "label")] == ["true", "1", "0", "2.5", "a"]


def test_a_line_separator_in_a_text_does_not_end_a_line(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"thresher_row_id":"r","text":"one\u2028two\x85three","label":"x"}\n', encoding="utf-8"
    )
    assert [each.label for each in read_answers(tmp_path / "a.jsonl", "label")] == ["x"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"id": "r", "label": {"a": 1}}, "answers entry 1: a label must be a text or a number"),
        ({"id": "r", "annotations": [{"result": 3}]}, "answers entry 1: the result .* must be a list of objects"),
        ({"id": "r", "annotations": [{"result": [3]}]}, "answers entry 1: the result .* must be a list of objects"),
    ],
)
def test_answers_of_a_wrong_form_are_refused(entry, problem):
    with pytest.raises(InputError, match=problem):
        read_answers([entry], "label")


@pytest.mark.parametrize(
    ("given", "label", "value"),
    [
        ([0, 1, None], "1", 1),
        ([0, 1], "7", 7),
        ([0, 1], "07", "07"),
        ([0, 1], "other", "other"),
        ([0.5, 1.0, float("nan")], "1", 1.0),
        ([0.5, 1.0], "nan", "nan"),
        ([True, False], "true", True),
        ([True, False], "1", "1"),
        (["1", 2], "2", "2"),
        ([1, 2.0], "2", 2.0),
        ([1, 1.5], "2.5", 2.5),
        ([True, 2], "2", "2"),
        ([], "2", "2"),
    ],
)
def test_a_label_has_the_type_of_those_beside_it(given, label, value):
    restored = restore_label(label, list_label_values(given))
    assert (restored, type(restored)) == (value, type(value))
