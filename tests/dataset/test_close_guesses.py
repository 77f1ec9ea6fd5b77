"""What a schema would leave out although it likely belongs to it is asked about."""

import pytest

from thresher.dataset import load
from thresher.errors import InputError

N = 12
ROWS = {
    "plain text with a choice": {"text": "t {}", "choice": "yes"},
    "plain text with a summary": {"text": "t {}", "summary": "s {}"},
    "plain text with spans": {"text": "Anna {}", "entities": [{"start": 0, "end": 4}]},
    "plain text of a message tree": {"text": "t {}", "role": "prompter"},
    "a question with a passage": {"passage": "p {}", "question": "q {}", "answer": "a"},
    "a question with options": {"question": "q {}", "options": ["x", "y"], "answer": "x"},
    "a prompt with an input": {"prompt": "Translate", "input": "word {}", "completion": "Wort"},
    "an instruction with a context, too": {"instruction": "i {}", "input": "", "context": "c {}", "output": "o"},
    "a category with an answer": {"input": "shoe {}", "category": "shoes", "target_scores": "red"},
}


def build(row, n=N):
    def fill(value, i):
        return value.replace("{}", str(i)) if isinstance(value, str) else value

    return [{name: fill(value, i) for name, value in row.items()} for i in range(n)]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_it_is_asked_about_and_the_advice_works(row):
    with pytest.raises(InputError, match="column .* may .*, or --schema") as caught:
        load(build(row))
    message = str(caught.value)
    schema = message.split("--schema ")[1].split()[0]
    assert len(load(build(row), schema=schema)) == N
    advice = message.split("give --map ")
    if len(advice) == 2:
        columns = dict(part.split("=") for part in advice[1].split()[0].split(","))
        assert len(load(build(row), columns=columns)) + len(load(build(row), columns=columns).rejected) == N


@pytest.mark.parametrize(
    ("row", "schema"),
    [
        ({"prompt": "Read: c {}. What is it?", "context": "c {}", "completion": "a"}, "prompt-completion"),
        ({"question": "q {}: x or y?", "options": ["x", "y"], "answer": "x"}, "query-response"),
        ({"question": "q {}", "context": "c", "answer": "a"}, "query-response"),
        ({"instruction": "i {}", "context": "c", "response": "o"}, "alpaca"),
        ({"text": "t {}", "label": "a", "summary": "s"}, "text-label"),
        ({"text": "t {}", "url": "u", "score": 0.5, "language": "en", "title": "x"}, "text"),
        ({"question": "q {}", "answer": "a", "passage": None}, "query-response"),
    ],
)
def test_what_is_read_or_repeated_or_something_else_is_not_asked_about(row, schema):
    assert load(build(row)).schema.name == schema


def test_ratings_beside_plain_text_are_not_asked_about_but_named():
    rows = load([{"text": f"t {i}", "stars": i % 5} for i in range(N)])
    assert rows.notes == ("column 'stars' is not learned; to learn it as a label give --map text=text,label=stars",)
    assert rows.schema.name == "text"


def test_three_columns_of_flags_are_labels():
    rows = [{"text": f"t {i}", "anger": i % 2, "joy": i % 3 == 0, "fear": str(i % 2)} for i in range(N)]
    rows = [{**row, "joy": int(row["joy"])} for row in rows]
    with pytest.raises(InputError, match="3 columns of 0 and 1 .*--map text=text,label=anger"):
        load(rows)
    assert len(load([{name: row[name] for name in ("text", "joy", "fear")} for row in rows])) == N


HISTORIES = {
    "pairs": [["q", "a"]],
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    "turns": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
@pytest.mark.parametrize(
    ("prompt", "response"), [("instruction", "output"), ("prompt", "response"), ("query", "answer")]
)
def test_a_history_is_read_in_any_form(prompt, response, history):
    rows = load([{prompt: "p", response: "r", "history": history}, {prompt: "p", response: "r", "history": []}])
    assert rows.frame["prompt"].to_list() == ["user: q\nassistant: a\nuser: p", "p"]
    assert [turn["role"] for turn in rows.messages([0])[0].messages] == ["user", "assistant"] * 2


def test_a_history_of_something_else_beside_a_prompt_is_another_column():
    rows = load([{"prompt": "p", "completion": "r", "history": "edited twice"}])
    assert rows.frame["prompt"].to_list() == ["p"]


def test_functions_of_the_first_form_are_tools():
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    function = {"name": "look", "parameters": {"type": "object"}}
    rows = load([{"messages": turns, "functions": [function]}, {"messages": turns, "functions": []}])
    tools = [conversation.tools for conversation in rows.messages([0, 1])]
    assert tools == [[{"type": "function", "function": function}], None]


def test_labels_that_are_withheld_are_named():
    assert "all labels are -1" in load([{"text": str(i), "label": -1} for i in range(3)]).notes[0]
    assert load([{"text": str(i), "label": i - 1} for i in range(3)]).notes == ()
