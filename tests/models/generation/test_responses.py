"""What is read from a server's responses: texts, and probabilities of options."""

import numpy as np
import pytest

from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import user_turn
from thresher.models.generation.load import load_generator
from thresher.models.generation.responses import find_named_option, option_probabilities

CONVERSATIONS = [user_turn(f"what is {i} and {i}?") for i in range(3)]
MESSAGE = {"message": {"content": "A"}, "finish_reason": "stop"}
TOP = {"content": [{"top_logprobs": [{"token": "A", "logprob": -0.1}]}]}


@pytest.mark.parametrize(
    ("response", "named"),
    [
        ({}, "holds no choices"),
        ({"choices": {}}, "holds no choices"),
        ({"choices": [{"finish_reason": "stop"}]}, "holds no message"),
        ({"choices": [{"message": "A"}]}, "holds no message"),
        ({"choices": [{"message": {}}]}, "content of its message must be text, got nothing"),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "must be text, got nothing"),
        ({"choices": [{"message": {"content": [{"type": "text"}]}}]}, "must be text, got a list"),
        ({"choices": [MESSAGE | {"logprobs": [1]}]}, "not of OpenAI's form"),
        ({"choices": [MESSAGE | {"logprobs": {"content": ["A"]}}]}, "not of OpenAI's form"),
        ({"choices": [MESSAGE | {"logprobs": {"content": [{"top_logprobs": [{"token": "A"}]}]}}]}, "not of OpenAI's"),
        (
            {"choices": [MESSAGE | {"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": None}]}]}}]},
            "not of OpenAI's form",
        ),
        (
            {"choices": [MESSAGE | {"logprobs": {"content": [{"top_logprobs": [{"token": 1, "logprob": 5e4}]}]}}]},
            "not of OpenAI's form",
        ),
    ],
)
def test_a_response_of_another_form_leaves_its_row_without_a_value_in_a_sentence(stub, response, named):
    """Missing keys and other types ended in a traceback; no text counted as an empty answer."""
    good = {"choices": [MESSAGE | {"logprobs": TOP}]}
    stub.reply = lambda body, number: (200, response if number == 2 else good)
    here = stub.make_context("?in_flight=1")
    scored = load_generator(here).score_options(CONVERSATIONS[:3], ("A", "B"), stage="choices", context=here)
    assert [problem is None for problem in scored.problems] == [True, False, True]
    assert scored.problems[1].startswith("the server's answer cannot be read: ")
    assert named in scored.problems[1]


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": None, "tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls"},
        {"message": {"content": None}, "finish_reason": "length"},
    ],
)
def test_no_text_before_a_call_of_tools_or_the_limit_is_an_empty_answer(stub, choice):
    stub.reply = lambda body, number: (200, {"choices": [choice]})
    assert stub.generate_texts(stub.make_context(), CONVERSATIONS[:1]) == [[""]]


def test_sampled_answers_have_seeds_of_their_own_that_do_not_change(stub):
    decoding = Decoding(n_samples=3, temperature=0.7, max_new_tokens=9)
    stub.generate_texts(stub.make_context(), CONVERSATIONS[:2], decoding)
    seeds = sorted(body["seed"] for body in stub.bodies)
    assert len(set(seeds)) == 6
    stub.bodies.clear()
    stub.generate_texts(stub.make_context(), CONVERSATIONS[:2][::-1], decoding)
    assert sorted(body["seed"] for body in stub.bodies) == seeds


def test_an_answer_at_the_limit_is_cut(stub):
    stub.reply = lambda body, number: stub.format_reply("very", finish="length")
    here = stub.make_context()
    assert load_generator(here).generate(CONVERSATIONS[:1], Decoding(), stage="a", context=here)[0][0].is_cut


def score_options(here):
    return load_generator(here).score_options(CONVERSATIONS[:1], ("A", "B"), stage="choices", context=here)


def test_choices_come_from_the_likeliest_tokens(stub):
    place = [{"token": "A", "logprob": -1.0}, {"token": " B", "logprob": -2.0}, {"token": "(B", "logprob": -3.0}]
    start = [{"token": "The", "logprob": -0.1}]
    stub.reply = lambda body, number: stub.format_reply(
        "A", logprobs={"content": [{"token": "The", "top_logprobs": start}, {"token": "A", "top_logprobs": place}]}
    )
    a, b = np.exp(-1.0), np.exp(-2.0) + np.exp(-3.0)
    np.testing.assert_allclose(score_options(stub.make_context()).probabilities, [[a / (a + b), b / (a + b)]])
    assert stub.bodies[0]["top_logprobs"] == 20


def test_choices_are_read_from_text_where_there_are_no_log_probabilities_and_told(stub):
    stub.reply = lambda body, number: stub.format_reply("(B) Incorrect")
    here = stub.make_context()
    who = load_generator(here)
    assert who.score_options(CONVERSATIONS[:1], ("A", "B"), stage="c", context=here).probabilities.tolist() == [
        [0.0, 1.0]
    ]
    assert "gives no log-probabilities" in who.notes()[0]


def test_an_unparsable_choice_is_missing_with_a_reason_and_not_one_half(stub):
    stub.reply = lambda body, number: stub.format_reply("I cannot say")
    scored = score_options(stub.make_context())
    assert np.isnan(scored.probabilities).all()
    assert scored.problems == ["the server's answer names none of the options, or several"]


def test_a_server_that_does_not_take_logprobs_is_asked_without_them(stub):
    stub.reply = lambda body, number: (
        (422, {"detail": "Unexpected: logprobs"}) if "logprobs" in body else stub.format_reply("A")
    )
    assert score_options(stub.make_context()).probabilities.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", [1, 0]),
        (" (B) because", [0, 1]),
        ("**A**", [1, 0]),
        ("B.", [0, 1]),
        ("The answer is (A).", [1, 0]),
        ("A good answer", None),
        ("(A) or (B)?", [1, 0]),
        ("either (A) or (B)", None),
        ("Alas", None),
        ("", None),
    ],
)
def test_options_named_in_text(text, expected):
    assert find_named_option(text, ("A", "B")) == expected


def test_the_place_counts_where_the_options_are_likeliest_and_not_a_tail_before_it():
    before = [("(", -0.05), ("A", -4.0), ("B", -5.0)]
    choice = [("B", -0.02), ("A", -4.5)]
    a, b = np.exp(-4.5), np.exp(-0.02)
    np.testing.assert_allclose(
        option_probabilities([before, choice, [(")", -0.01)]], ("A", "B")), [a / (a + b), b / (a + b)]
    )


def test_tokens_that_hold_no_option_have_no_share():
    assert option_probabilities([[("yes", -0.1)], []], ("A", "B")) is None
