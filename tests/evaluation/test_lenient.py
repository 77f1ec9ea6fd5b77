"""Answers that say what was expected in another form."""

import pytest

from thresher.evaluation.generation import score_leniently


@pytest.mark.parametrize(
    ("answer", "reference", "is_right"),
    [
        ("The answer is 42.", "42", True),
        ("42 apples, because 6 times 7", "so 6 * 7 = 42 #### 42", True),
        ("It is 1,200 in all", "1200", True),
        ("There are 41.", "42", False),
        ("I do not know", "42", False),
        ("The label is: Running Shoes!", "running shoes", True),
        ("running and shoes", "running shoes", False),
        ("shoestring", "shoes", False),
        ("<think>no: 7</think> 5 of them", "5", True),
    ],
)
def test_the_number_or_the_words_count_wherever_they_stand(answer, reference, is_right):
    assert score_leniently([answer], [reference]).value == float(is_right)


def test_long_references_without_a_number_cannot_be_looked_for():
    assert score_leniently(["a"], ["a long explanation of many words in which no number ever occurs at all"]) is None
