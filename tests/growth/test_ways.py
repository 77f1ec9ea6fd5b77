"""The other ways of growing, each with a writer whose answers are known."""

import re
from collections import Counter

import numpy as np
import pytest

import thresher as th
from tests.growth.growth_rows import make_sums, read_sum
from thresher.errors import SettingsError
from thresher.growth.ways.failures import N_VOTES


def reasons(grown):
    return Counter(grown.refused["reason"])


def test_own_takes_the_own_answer_else_the_rewording_else_the_row(stub, model):
    def reply(body, number):
        text = body["messages"][-1]["content"]
        first = int(re.findall(r"how much is (\d+)", text)[-1])
        if "in your own words" in text:
            return stub.format_reply(f"Said again: #### {read_sum(body) if first == 1 else -1}")
        return stub.format_reply(f"Mine: #### {read_sum(body) if first == 0 else 0}")

    stub.reply = reply
    rows = make_sums(3)
    grown = th.grow(rows, how="own", **model)
    assert [row["answer"] for row in grown.rows] == ["Mine: #### 1", "Said again: #### 3", rows[2]["answer"]]
    assert [row["answer_from"] for row in grown.rows] == ["own", "reworded", "gold"]
    assert [row["grown_from"] is None for row in grown.rows] == [False, False, True]
    assert reasons(grown) == {"wrong": 3}
    assert grown.manifest.content["answers"] == {"own answers": 3, "answers in own words": 2}


def test_failures_grow_rows_for_wrong_answers_that_the_writer_confirms(stub, model):
    new = {
        4: "Question: Nine birds and three cats, how many animals?\nAnswer: 9+3=12\n#### 12",
        5: "Question: Two dogs with a bone each, how many bones do they have?\nAnswer: 1+1\n#### 2",
        6: "I cannot.",
        7: "**Question:** how much is 0 plus 1?\n\n**Answer:** #### 1",
    }

    def reply(body, number):
        text = body["messages"][-1]["content"]
        if "<wrong>" in text:
            assert f"<wrong>\n#### {read_sum(body) + 1}" in text  # the writer sees what was wrong
            return stub.format_reply(new[int(re.findall(r"how much is (\d+)", text)[0])])
        if "birds" in text:
            return stub.format_reply("#### 12" if body["seed"] % 3 else "#### 13")
        if "dogs" in text:
            return stub.format_reply("#### 3")
        total = read_sum(body)
        return (
            stub.format_reply("so many tokens", finish="length")
            if total == 7
            else stub.format_reply(f"#### {total + (total > 7)}")
        )

    stub.reply = reply
    grown = th.grow(make_sums(8), how="failures", seed=1, **model)
    facts = grown.manifest.content["facts"]
    assert (facts["seeds_failed"], facts["seeds_undecided"]) == (4, 1)
    assert [row["question"] for row in grown.rows] == ["Nine birds and three cats, how many animals?"]
    assert grown.rows[0]["answer"] == "9+3=12\n#### 12"
    assert reasons(grown) == {"unconfirmed": 1, "unreadable": 1, "exact-duplicate": 1}
    assert grown.manifest.content["answers"]["confirmations"] == 3 * N_VOTES


def test_failures_write_no_question_before_the_tool_results_of_another(stub, model):
    def make_chat(i, *between):
        turns = [{"role": "user", "content": f"how much is {i} plus {i + 1}?"}, *between]
        return {"messages": [*turns, {"role": "assistant", "content": f"#### {2 * i + 1}"}]}

    call = {"type": "function", "function": {"name": "add", "arguments": "{}"}}
    tools = ({"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "3"})
    new = "Question: Nine birds and three cats, how many animals?\nAnswer: 9+3=12\n#### 12"

    def reply(body, number):
        text = body["messages"][-1]["content"]
        return stub.format_reply(new if "<wrong>" in text else "#### 12" if "birds" in text else "#### 0")

    stub.reply = reply
    grown = th.grow([make_chat(0), make_chat(1, *tools)], how="failures", **model)
    assert [row["grown_from"] for row in grown.rows] == [grown.pool.frame["row_id"][0]]
    assert reasons(grown) == {"not-asked": 1}
    assert [turn["role"] for turn in grown.rows[0]["messages"]] == ["user", "assistant"]


def test_a_writer_that_copies_seeds_or_held_out_rows_adds_none(stub, model):
    pool = make_sums(6)
    held_out = [{"question": "A train with 12 cars loses 5 of them at night, how many are left?", "answer": "#### 7"}]
    copies = [*pool[:3], *held_out]

    def reply(body, number):
        text = body["messages"][-1]["content"]
        if "<wrong>" in text:
            copy = copies[int(re.findall(r"how much is (\d+)", text)[0]) % 4]
            return stub.format_reply(f"Question: {copy['question']}\nAnswer: {copy['answer']}")
        if "train" in text:
            return stub.format_reply("#### 7")
        is_confirming = body.get("seed") is not None
        return stub.format_reply(f"#### {read_sum(body) if is_confirming else 0}")

    stub.reply = reply
    grown = th.grow(pool, how="failures", eval=held_out, **model)
    assert grown.rows == []
    assert set(reasons(grown)) <= {"near-duplicate", "exact-duplicate", "leak"}
    assert len(grown.refused) == 6


def test_reword_keeps_numbers_and_meaning(stub, model):
    said = {
        0: "What do 0 and 1 add up to, please?",
        1: "how much is 1 plus 2?",
        2: "What do 2 and 4 add up to?",
        3: "The weather in Rome was fine on 3 days and 4 nights of our long summer holidays",
    }
    stub.reply = lambda body, number: stub.format_reply(said[(read_sum(body) - 1) // 2])
    grown = th.grow(make_sums(4), how="reword", least_similarity=0.55, **model)
    assert [row["question"] for row in grown.rows] == [said[0]]
    assert grown.rows[0]["answer"] == "0+1=1\n#### 1"
    assert grown.refused["reason"].to_list() == ["same-as-the-row", "constraint-broken", "constraint-broken"]
    assert grown.refused["explanation"][1] == "its numbers are not those of the row's prompt"
    assert "at least 0.55 is required" in grown.refused["explanation"][2]


def test_explain_keeps_a_reasoning_from_which_the_answer_follows(stub, model):
    rows = [{"prompt": "capital of France?", "response": "Paris"}, {"prompt": "capital of Peru?", "response": "Lima"}]
    shown = []

    def reply(body, number):
        text = body["messages"][-1]["content"]
        if "right answer is" in text:
            return stub.format_reply("It lies on the Seine: Paris." if "France" in text else "It is Lima, as is known.")
        shown.append(text)
        return stub.format_reply("Paris" if "Seine" in text else "Cusco")

    stub.reply = reply
    grown = th.grow(rows, how="explain", **model)
    assert [row["response"] for row in grown.rows] == ["It lies on the Seine: Paris.\nParis"]
    assert reasons(grown) == {"wrong": 1}
    assert all("Paris" not in text and "Lima" not in text for text in shown)


def test_constraints_ask_for_words_and_keep_texts_of_the_label(stub, model):
    rows = [{"text": f"my card payment of {i} was declined at the shop", "label": "card"} for i in range(8)]
    rows += [{"text": f"the transfer of {i} to my bank account is late", "label": "transfer"} for i in range(8)]
    asked = []

    def reply(body, number):
        text = body["messages"][-1]["content"]
        asked.append(text)
        words = re.search(r"Use the words: (.*)\.", text).group(1).split(", ")
        label = re.search(r"class '(\w+)'", text).group(1)
        other = " of the late transfer to a bank account" if label == "card" and number == 1 else ""
        return stub.format_reply(f"why was it that {' and '.join(words)} went wrong{other} {number}")

    stub.reply = reply
    grown = th.grow(
        rows, how="constraints", least_probability=0.5, **{**model, "model": f"{stub.url}?in_flight=1#tiny"}
    )
    assert len(asked) == 16
    for text in asked:
        wanted = set(re.search(r"Use the words: (.*)\.", text).group(1).split(", "))
        assert wanted <= {"card", "payment", "declined", "shop", "transfer", "bank", "account", "late"}
    assert {row["label"] for row in grown.rows} <= {"card", "transfer"}
    assert len(grown.rows) + len(grown.refused) == 16
    assert set(reasons(grown)) <= {"constraint-broken", "wrong", "near-duplicate", "exact-duplicate"}
    assert "constraint-broken" in reasons(grown)


def test_a_judge_decides_in_both_orders(stub, model):
    def reply(body, number):
        text = body["messages"][-1]["content"]
        if "Which answer is better" not in text:
            return stub.format_reply("good" if "first" in text else "bad")
        prefers_first = "Answer A:\ngood" in text or "Answer B:\nbad" in text
        return stub.format_reply("A" if prefers_first else "B")

    stub.reply = reply
    rows = [{"prompt": "first thing", "response": "fair"}, {"prompt": "next thing", "response": "fine"}]
    grown = th.grow(rows, check="judge", n_samples=1, **model)
    assert [row["response"] for row in grown.rows] == ["good"]
    assert grown.refused["explanation"].to_list() == ["the judge finds the row's answer better"]


@pytest.mark.parametrize("as_text", [False, True])
def test_conversations_keep_their_form(stub, model, as_text):
    import json

    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "how much is 2 plus 3?"},
        {"role": "assistant", "content": "#### 5"},
    ]
    stub.reply = lambda body, number: stub.format_reply("2 and 3 are\n#### 5")
    [row] = th.grow([{"messages": json.dumps(turns) if as_text else turns}], n_samples=1, **model).rows
    messages = json.loads(row["messages"]) if as_text else row["messages"]
    assert messages == [*turns[:2], {"role": "assistant", "content": "2 and 3 are\n#### 5"}]
    assert stub.bodies[0]["messages"] == turns[:2]


def test_bounds_between_which_no_prompt_lies_are_refused(model):
    with pytest.raises(SettingsError, match="least_similarity must be below most_similarity, got 0.9 and 0.9"):
        th.grow(make_sums(2), how="reword", least_similarity=0.9, most_similarity=0.9, **model)


def test_with_an_entailment_model_each_prompt_must_follow_from_the_other(stub, model, tiny_nli, monkeypatch):
    from thresher.features.answers.entailment import Entailment

    stub.reply = lambda body, number: stub.format_reply(
        f"Please add the numbers {read_sum(body) // 2} and {read_sum(body) // 2 + 1}, and say how much they make."
    )
    monkeypatch.setattr(
        Entailment,
        "predict_entailments",
        lambda self, pairs, *, stage, context: np.array([0.2 if " 1 " in b and " 1 " in a else 0.9 for a, b in pairs]),
    )
    grown = th.grow(make_sums(3), how="reword", entailment=str(tiny_nli), **model)
    refused = grown.refused.filter(grown.refused["reason"] == "constraint-broken")["explanation"]
    assert all("does not find that each of the two follows from the other" in why for why in refused)
    assert len(refused) >= 1
    assert grown.manifest.content["entailment"]
