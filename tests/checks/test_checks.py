"""Checks: what is the same, what is not, and what a hostile text cannot do."""

import time

import pytest

from thresher.checks import available, create_check
from thresher.errors import NotFoundError, SettingsError


@pytest.mark.parametrize(
    ("answer", "reference", "is_right"),
    [
        ("So 5*2=<<5*2=10>>10\n#### 10", "#### 10", True),
        ("The answer is $1,234.50.", "#### 1234.5", True),
        ("-5", "5", False),
        ("it is \u22125 degrees", "#### -5", True),
        ("-$5", "-5", True),
        ("10-5", "5", True),
        ("(3)-5", "5", True),
        ("10 - 15 = -5", "#### -5", True),
        (r"\boxed{\frac{1}{2}} of 7", "0.5", True),
        (r"\boxed{12} and \boxed{13}", "13", True),
        ("3/4", "0.75", True),
        ("1/0", "1", False),
        ("1,2", "2", True),
        ("1,2", "12", False),
        ("v2 is 7", "7", True),
        ("18 apples, 20 pears", "18", False),
        ("#### 18\nThat is 20 more", "18", True),
        ("####\nno idea, 7", "7", True),
        ("none", "7", False),
        ("1e3", "1000", True),
        (".5", "0.5", True),
    ],
)
def test_final_numbers(answer, reference, is_right):
    assert create_check("number").is_right(answer, reference) is is_right


@pytest.mark.parametrize(
    "text", ["9" * 100_000, "1e" + "9" * 50_000, "1," * 50_000, "\\boxed{" * 20_000, "[" * 100_000]
)
@pytest.mark.parametrize("name", ["number", "json", "choice", "auto", "exact"])
def test_a_hostile_text_costs_little(name, text):
    began = time.perf_counter()
    create_check(name).is_right(text, "7")
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("name", "answer", "reference", "is_right"),
    [
        ("exact", " two\n words ", "two words", True),
        ("exact", "Two words", "two words", False),
        ("exact", "", "", False),
        ("choice", "I think the answer is (B) Rome, not A.", "B", True),
        ("choice", "B. Rome", "(B)", True),
        ("choice", "A good answer", "A", False),
        ("choice", "(A) or (C)", "C", True),
        ("json", 'Here: ```json\n{"b": 2.0, "a": " x"}\n```', '{"a": "x", "b": 2}', True),
        ("json", '{"a": "x"}', '{"a": "x", "b": 2}', False),
        ("json", "{'a': 1}", '{"a": 1}', False),
        ("json", "[1, 2] and more", "[1, 2]", True),
        ("regex:is (\\w+)", "it is one, it is two", "is two", True),
        ("regex:is (\\w+)", "nothing", "is two", False),
        ("regex:a:b", "x a:b", "a:b", True),
        ("auto", "#### 4", "2+2=4\n#### 4", True),
        ("auto", "the 4", "4", True),
        ("auto", '{"a":1}', ' {"a": 1.0}', True),
        ("auto", "it is (C)", "C", True),
        ("auto", "4 feet", "four feet", False),
        ("auto", "four  feet", "four feet", True),
    ],
)
def test_words_choices_json_and_patterns(name, answer, reference, is_right):
    assert create_check(name).is_right(answer, reference) is is_right


@pytest.mark.parametrize("name", [name for name in available() if name != "regex"])
def test_a_text_that_says_something_is_right_about_itself(name):
    check = create_check(name)
    for text in ("#### 4", "B", '{"a": [1, null]}', "some words", "", "{", "\\boxed{}"):
        assert check.is_right(text, text) is (check.read(text) is not None)


def test_an_unknown_check_and_wrong_settings_are_refused():
    with pytest.raises(NotFoundError, match="check 'numbr' not found; available: .*did you mean 'number'"):
        create_check("numbr")
    with pytest.raises(SettingsError, match="takes no setting, got 'x'"):
        create_check("number:x")
    with pytest.raises(SettingsError, match="needs the setting 'pattern'"):
        create_check("regex")
    with pytest.raises(SettingsError, match="must be a regular expression"):
        create_check("regex:(")


@pytest.mark.parametrize("minus", ["-", "\u2212", "\u2012", "\u2013"])
def test_a_lone_number_is_one_with_every_minus(minus):
    check = create_check("auto")
    assert check.is_right("so it is -5", f"{minus}5")
    assert not check.is_right("so it is 5", f"{minus}5")
