"""Knowledge against counting by hand, with a model that knows some rows behind some examples."""

import json

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features import FeatureCache, compute, make_context
from thresher.features.answers import answer_accuracy
from thresher.features.settings import AnswerAccuracySettings
from thresher.models.generation.generator import Generation
from thresher.selectors.known_unknown import groups

CAPITALS = ["Paris", "Rome", "Berlin", "Madrid", "Vienna", "Oslo", "Bern", "Lima"]
ROWS = [{"prompt": f"capital of land {i}?", "completion": city, "kind": "odd" if i % 2 else "even"}
        for i, city in enumerate(CAPITALS)]  # fmt: skip
FEW = AnswerAccuracySettings(n_prompts=3, n_examples=2, n_samples=4)


class Pupil:
    """Knows land 0 always, land 1 behind some examples, land 2 when lucky, and nothing else."""

    name, fingerprint = "pupil", "p"

    def __init__(self):
        self.asked = []

    def says(self, conversation, sample, is_drawn):
        turns = [turn["content"] for turn in json.loads(conversation)["messages"]]
        land = int(turns[-1].split()[-1].rstrip("?"))
        is_right = land == 0 or (land == 1 and hash_pair(turns) % 2 == 0) or (land == 2 and is_drawn and sample == 3)
        return f"  {CAPITALS[land]}\n" if is_right else "no idea"

    def generate(self, conversations, decoding, *, stage, context):
        self.asked += [(conversation, decoding) for conversation in conversations]
        is_drawn = decoding.temperature > 0
        return [
            [Generation(self.says(conversation, i, is_drawn)) for i in range(decoding.n_samples)]
            for conversation in conversations
        ]

    def notes(self):
        return []


def hash_pair(turns):
    return sum(map(len, turns[1::2]))


@pytest.fixture
def pupil(monkeypatch):
    who = Pupil()
    monkeypatch.setattr(answer_accuracy, "load_generator", lambda context: who)
    return who


def context(settings=FEW, **more):
    return make_context(**{"cache": None, "answer_accuracy": settings, "device": "cpu", **more})


def measure_rows(rows, settings=FEW, **more):
    return compute(th.load(rows), ["answer_accuracy"], context(settings, **more))


def test_shares_are_those_of_right_answers_over_prompts_and_draws(pupil):
    found = measure_rows(ROWS)["answer_accuracy"]
    conversations = [
        conversation
        for conversation, decoding in pupil.asked
        if decoding.temperature == 0 and conversation.endswith('land 1?"}],"tools":null}')
    ]
    expected = np.mean([pupil.says(conversation, 0, False) != "no idea" for conversation in conversations])
    assert len(conversations) == 3
    assert found["likeliest"].tolist() == [1.0, pytest.approx(expected), 0, 0, 0, 0, 0, 0]
    assert found["drawn"][2:].tolist() == [0.25, 0, 0, 0, 0, 0]
    assert np.isnan(found["drawn"][0])  # not drawn for: it makes no difference


def test_many_answers_are_announced_before_the_first_is_asked_for(pupil):
    notes = []
    many = AnswerAccuracySettings(n_prompts=10, n_examples=2, n_samples=16)

    def listen(progress):
        notes.extend([] if progress.note is None or pupil.asked else [progress.note])

    measure_rows(ROWS, many, on_progress=listen)
    assert [note.partition(";")[0] for note in notes] == [
        "answer_accuracy: 80 answers are needed, and up to 1,280 more for rows that the model gets wrong, less what is "
        "cached"
    ]
    pupil.asked.clear()
    notes.clear()
    measure_rows(ROWS, on_progress=listen)  # 3 * 8 * (1 + 4) are few
    assert notes == []


def test_answers_are_drawn_only_for_rows_that_the_likeliest_answers_miss(pupil):
    found = measure_rows(ROWS)
    missed = int((found["answer_accuracy"]["likeliest"] == 0).sum())
    n_drawn = sum(decoding.temperature > 0 for _, decoding in pupil.asked)
    assert len(pupil.asked) - n_drawn == 3 * len(ROWS)
    assert n_drawn == 3 * missed == 3 * found.notes["answer_accuracy"]["rows_drawn"]
    assert {decoding.n_samples for _, decoding in pupil.asked if decoding.temperature > 0} == {4}


def test_prompts_show_other_rows_and_never_the_question_itself(pupil):
    measure_rows([*ROWS, {"prompt": ROWS[0]["prompt"], "completion": "Lyon", "kind": "even"}])
    for conversation, _ in pupil.asked:
        turns = json.loads(conversation)["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
        assert turns[-1]["content"] not in [turn["content"] for turn in turns[:-1]]
        assert turns[0] != turns[2]
    shown = {}
    for conversation, decoding in pupil.asked:
        if decoding.temperature == 0:
            turns = json.loads(conversation)["messages"]
            shown.setdefault(turns[-1]["content"], []).append(str(turns[:-1]))
    assert any(len(set(each)) == 3 for each in shown.values())


def test_the_order_of_rows_does_not_matter_and_a_growing_pool_changes_little(pupil):
    measure_rows(ROWS)
    first = {conversation for conversation, _ in pupil.asked}
    pupil.asked.clear()
    measure_rows(ROWS[::-1])
    assert {conversation for conversation, _ in pupil.asked} == first
    many = [{"prompt": f"capital of land {i}?", "completion": f"city {i}", "kind": "x"} for i in range(8, 400)]
    pupil.says = lambda conversation, sample, is_drawn: "no idea"
    pupil.asked.clear()
    measure_rows(many)
    before = {conversation for conversation, _ in pupil.asked}
    pupil.asked.clear()
    measure_rows([*many, *ROWS[:4]])
    again = {conversation for conversation, _ in pupil.asked}
    assert len(before & again) > 0.9 * len(before)


def test_examples_are_of_the_rows_own_group_on_request(pupil):
    measure_rows(ROWS, AnswerAccuracySettings(n_prompts=2, n_examples=2, n_samples=1, by="kind"))
    for conversation, _ in pupil.asked:
        lands = [int(turn["content"].split()[-1].rstrip("?")) for turn in json.loads(conversation)["messages"][::2]]
        assert len({land % 2 for land in lands}) == 1


def test_examples_can_come_from_other_rows(pupil):
    others = th.load([{"prompt": f"add {i}", "completion": str(i)} for i in range(5)])
    measure_rows(ROWS, examples=others)
    shown = {turn["content"] for conversation, _ in pupil.asked for turn in json.loads(conversation)["messages"][:-1]}
    assert shown <= {f"add {i}" for i in range(5)} | set("01234")


def test_long_responses_and_rows_without_enough_examples_have_a_reason(pupil):
    rows = [*ROWS[:3], {"prompt": "tell me", "completion": "one two three four five six seven eight nine ten eleven"}]
    found = measure_rows(rows)
    assert found.missing["answer_accuracy"].to_list() == [None] * 3 + [
        "its response has more than 10 words; only short answers are compared"
    ]
    assert np.isnan(found["answer_accuracy"]["likeliest"]).tolist() == [False] * 3 + [True]
    found = measure_rows(ROWS[:2])
    assert found.missing["answer_accuracy"][0] == "there are fewer than 2 other rows with short answers as examples"


def test_a_row_without_any_answer_has_its_reason(pupil):
    answers = pupil.generate

    def some(conversations, decoding, **how):
        given = answers(conversations, decoding, **how)
        return [
            [Generation(None, problem="no room")] * len(row) if "land 5?" in conversation.rsplit("user", 1)[1] else row
            for conversation, row in zip(conversations, given, strict=True)
        ]

    pupil.generate = some
    found = measure_rows(ROWS)
    assert found.missing["answer_accuracy"][5] == "no room"
    assert found.missing["answer_accuracy"].null_count() == len(ROWS) - 1


@pytest.mark.parametrize("cut", ["Os", "O\ufffd"])
def test_an_answer_that_was_right_as_far_as_it_went_is_neither_right_nor_wrong(pupil, cut):
    answers = pupil.generate

    def some(conversations, decoding, **how):
        given = answers(conversations, decoding, **how)
        for conversation, row in zip(conversations, given, strict=True):
            last = conversation.rsplit("user", 1)[1]
            if "land 5?" in last or "land 6?" in last:  # Oslo is cut; of Bern something wrong is
                row[:] = [Generation(cut, is_cut=True)] * len(row)
        return given

    pupil.generate = some
    found = measure_rows(ROWS)
    assert found.missing["answer_accuracy"][5] == (
        "an answer was right so far when it was cut off at max_new_tokens; raise max_new_tokens"
    )
    assert found.missing["answer_accuracy"].null_count() == len(ROWS) - 1
    assert np.isnan(found["answer_accuracy"]["likeliest"][5])
    assert found["answer_accuracy"]["likeliest"][6] == 0


def test_without_examples_the_question_stands_alone(pupil):
    measure_rows(ROWS[:1], AnswerAccuracySettings(n_prompts=1, n_examples=0, n_samples=1))
    assert len(json.loads(pupil.asked[0][0])["messages"]) == 1


def test_plain_text_is_refused():
    with pytest.raises(InputError, match="answer_accuracy: rows need a prompt and a response, found plain text"):
        measure_rows([{"text": "a"}, {"text": "b"}])


def test_a_real_model_gives_the_same_with_and_without_the_cache(tiny_llama, tmp_path):
    settings = AnswerAccuracySettings(n_prompts=2, n_examples=1, n_samples=2, max_new_tokens=3)
    first = measure_rows(ROWS, settings, model=str(tiny_llama))["answer_accuracy"]
    cache = FeatureCache(tmp_path)
    for _ in range(2):
        again = measure_rows(ROWS[::-1], settings, model=str(tiny_llama), cache=cache)["answer_accuracy"][::-1]
        np.testing.assert_array_equal(again["likeliest"], first["likeliest"])
    assert set(groups(first)) <= {2, 3}  # a random model knows nothing by its likeliest answer


def test_groups_are_those_of_the_paper():
    nan = np.nan
    values = np.array(
        [(1, nan), (0.5, nan), (0, 0.1), (0, 0), (nan, nan), (1, 0)], dtype=answer_accuracy.ANSWER_ACCURACY
    )
    assert groups(values).tolist() == [0, 1, 2, 3, -1, 0]


def test_select_keeps_group_after_group_and_says_why_a_group_is_left_out(pupil):
    settings = {"n_prompts": 3, "n_examples": 2, "n_samples": 4, "order": "weakly-known,highly-known"}
    subset = th.select(ROWS, "known-unknown", budget=2, settings=settings)
    assert [row["completion"] for row in subset.rows] == ["Paris", "Berlin"]
    assert subset.manifest.content["notes"]["weakly_known"] == 1
    explanations = set(subset.dropped["explanation"])
    assert any("group 'unknown', which the setting order leaves out" in each for each in explanations)
