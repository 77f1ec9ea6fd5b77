import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.dataset import load
from thresher.dataset.own_text.matching import describe_matches, match_rows

LAKES = [f"Ruritania{i}" for i in range(40)]


def pairs(questions, answers):
    return load([{"prompt": q, "completion": a} for q, a in zip(questions, answers, strict=True)])


def matched(rows, others):
    return {i: int(at) for i, at in enumerate(match_rows(rows, others)) if at >= 0}


def test_a_question_behind_a_system_turn_of_one_side_is_the_same_question():
    question = "Please tell me in one word what the largest lake of {} is called"
    pool = load(
        [
            {
                "messages": [
                    {"role": "system", "content": "You help with a quiz."},
                    {"role": "user", "content": question.format(lake)},
                    {"role": "assistant", "content": f"Lake{i}"},
                ]
            }
            for i, lake in enumerate(LAKES)
        ]
    )
    test = pairs([question.format(lake) for lake in LAKES[:20]], [f"Lake{i}" for i in range(20)])
    assert matched(pool, test) == {i: i for i in range(20)}
    assert matched(test, pool) == {i: i for i in range(20)}
    assert describe_matches(pool, test, match_rows(pool, test)).endswith("and 17 more")


def test_case_space_and_marks_at_the_ends_do_not_count():
    pool = pairs(["Name the largest  lake of Ruritania.", "What is 3-4?"], ["Lake", "-1"])
    test = pairs(["name the largest lake of ruritania", "What is 3+4?"], ["lake.", "7"])
    assert matched(pool, test) == {0: 0}


def test_a_question_with_many_answers_is_matched_with_its_answer():
    pool = pairs(["Tell me a joke"] * 30, [f"joke {i}" for i in range(30)])
    test = pairs(["Tell me a joke"] * 3, ["Joke 4.", "another", "one more"])
    assert matched(pool, test) == {4: 0}


def test_the_input_of_another_task_is_another_question():
    pool = pairs([f"Translate to French: {lake}" for lake in LAKES], ["yes"] * 40)
    test = pairs([f"Translate to German: {lake}" for lake in LAKES], ["yes"] * 40)
    assert matched(pool, test) == {}
    same = pairs([f"Name the lake of: {lake}" for lake in LAKES], LAKES)
    assert len(matched(pairs([f"Which lake has {lake}?" for lake in LAKES], LAKES), same)) == 40


@pytest.mark.parametrize("key", ["text", "label"])
def test_labels_do_not_count_and_texts_without_a_label_are_compared_too(key):
    rows = [{"text": "a red leaf", "label": "x"}, {"text": "the sky", "label": "y"}]
    others = [{"text": "A red leaf!", "label": "y"}]
    if key == "text":
        rows, others = ([{"text": row["text"]} for row in side] for side in (rows, others))
    assert match_rows(load(rows), load(others)).tolist() == [0, -1]


def test_no_rows_match_no_rows():
    rows = load([{"text": "a", "label": "x"}])
    assert match_rows(rows.take([]), rows).tolist() == []
    assert match_rows(rows, rows.take(np.zeros(0, np.int64))).tolist() == [-1]


SHOTS = "Q: Where is Rome?\nA: In Italy.\n\nQ: "
WRAPPERS = st.tuples(
    st.sampled_from(
        [
            "",
            "Translate: ",
            "Q: Where is Rome?\nA: In Italy.\n\nQ: ",
            "Ты помощник. Вопрос: ",
            "请回答：",
            "Be kind. " * 40,
        ]
    ),
    st.sampled_from(["", "\nA:", " Answer in one word.", "。", "</q>"]),
)


@settings(max_examples=40, deadline=None)
@given(ours=WRAPPERS, theirs=WRAPPERS, n_words=st.integers(2, 20), seed=st.integers(0, 99))
def test_precision_and_recall_do_not_depend_on_the_wrappers_of_either_side(ours, theirs, n_words, seed):
    rng = random.Random(seed)
    words = [a + b for a in ("ka", "lo", "mi", "ru", "ten", "vas") for b in ("dan", "mer", "sit", "fol", "gra")]
    questions = list({" ".join(rng.choices(words, k=n_words)) for _ in range(120)})[:100]
    answers = [rng.choice(words) + str(i) for i in range(100)]
    n = len(questions)
    pool = pairs([ours[0] + questions[i] + ours[1] for i in range(n - 30)], answers[: n - 30])
    test = pairs([theirs[0] + questions[i] + theirs[1] for i in range(n - 50, n)], answers[n - 50 : n])
    assert matched(pool, test) == {i: i - (n - 50) for i in range(n - 50, n - 30)}
