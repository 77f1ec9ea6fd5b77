import random

import polars as pl
import pytest

from thresher.dataset.own_text.own_text import find_own_texts
from thresher.dataset.own_text.words import locate_words, split_words

NAMES = [a + b for a in ("ka", "lo", "mi", "ru", "ten", "vas") for b in ("dan", "mer", "sit", "fol", "gra")]


def own(texts):
    (side,) = find_own_texts([pl.Series("text", texts)])
    return side


def test_words_are_runs_of_letters_and_single_marks_and_characters():
    texts = pl.Series(["Ab, 12!\nc", "", "猫と犬", "  "])
    words, starts = locate_words(texts)
    assert words.offsets.tolist() == [0, 5, 5, 8, 8]
    assert starts.tolist() == [0, 2, 4, 6, 8, 0, 1, 2]
    assert words.is_last.tolist() == [False, False, False, True, True, False, False, True]
    assert words.is_letter.tolist() == [True, False, True, False, True, True, True, True]
    for one, other in zip(words, split_words(texts), strict=True):
        assert one.tolist() == other.tolist()
    again = split_words(pl.Series(["AB  c", "ab C"])).hashes
    assert again[:2].tolist() == again[2:].tolist()


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("Translate to French: ", ""),
        ("", " in one word"),
        ("A very long system prompt. " * 30, "!"),
        ("翻译成法语：", "。"),
    ],
)
@pytest.mark.parametrize("n", [30, 300])
def test_what_all_rows_share_before_and_behind_is_not_their_own(prefix, suffix, n):
    names = [f"{NAMES[i % 30]}{i}" for i in range(n)]
    side = own([prefix + name + suffix for name in names])
    assert side.texts.to_list() == names
    assert side.has_wrapper.all()
    assert len(set(side.wrapper.tolist())) == 1


def test_a_group_of_rows_has_its_own_wrapper():
    texts = [
        f"{'Translate this into French' if i % 3 else 'Say what this is about'}: {NAMES[i % 30]} {i}" for i in range(60)
    ]
    side = own(texts)
    assert side.texts.to_list() == [f"{NAMES[i % 30]} {i}" for i in range(60)]
    assert len(set(side.wrapper.tolist())) == 2


def test_examples_in_any_order_are_shared_passages():
    rng = random.Random(0)
    examples = [f"Q: Where is the town of {name}?\nA: In the land of {name[::-1]}ia." for name in NAMES[:6]]
    texts = [
        "\n".join([*rng.sample(examples, 3), f"Q: Who is {NAMES[i % 30]} {i} of {NAMES[i % 7]}?"]) for i in range(90)
    ]
    assert own(texts).texts.to_list() == [f"Who is {NAMES[i % 30]} {i} of {NAMES[i % 7]}" for i in range(90)]


def test_copies_with_an_edit_here_and_there_share_no_template():
    rng = random.Random(0)
    words = rng.choices(NAMES, k=60)
    texts = []
    for i in range(40):
        copy = list(words)
        copy[rng.randrange(60)] = f"edit{i}"
        texts.append(" ".join(copy))
    assert own(texts).texts.to_list() == texts


def test_a_row_that_is_all_shared_text_keeps_it_all():
    texts = ["Tell me about", *(f"Tell me about {name}" for name in NAMES)]
    assert own(texts).texts[0] == "Tell me about"


def test_the_wrapper_of_a_few_rows_is_known_from_the_other_side():
    pool = pl.Series([f"You are a guide. Be brief.\nWhere is {name}?" for name in NAMES])
    test = pl.Series([f"You are a guide. Be brief.\nWhere is {name}?" for name in ("Atlantis", "Avalon")])
    _, side = find_own_texts([pool, test])
    assert side.texts.to_list() == ["Atlantis", "Avalon"]


def test_no_rows_and_blank_rows_have_own_texts():
    assert own([]).texts.to_list() == []
    assert own(["", " ", "a"]).texts.to_list() == ["", " ", "a"]
