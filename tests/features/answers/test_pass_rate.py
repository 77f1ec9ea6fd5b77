"""Pass rates against counting by hand, and the selector on top of them."""

import json
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError, NotFoundError
from thresher.features import FeatureCache, compute, make_context
from thresher.features.answers import pass_rate
from thresher.features.answers.pass_rate import estimate_pass_k
from thresher.features.settings import PassRateSettings
from thresher.models.generation.generator import Generation

ROWS = [{"question": f"how much is {n} and {n}?", "answer": f"{n}+{n}={2 * n}\n#### {2 * n}"} for n in range(5)]


class Pupil:
    """Is right in the first n of its samples about n, and says one number more otherwise."""

    name, fingerprint = "pupil", "p"

    def generate(self, conversations, decoding, *, stage, context):
        answers = []
        for conversation in conversations:
            n = int(json.loads(conversation)["messages"][-1]["content"].split()[3])
            right, wrong = Generation(f"It is {2 * n}."), Generation(f"It is {2 * n + 1}.")
            answers.append([right if i < n else wrong for i in range(decoding.n_samples)])
            if n == 3:  # a problem decides nothing
                answers[-1][0] = Generation(None, problem="no room")
            if n in (2, 4):  # a cut answer counts as it stands
                answers[-1][3 if n == 2 else 0] = Generation("It is" if n == 2 else "It is 8.", is_cut=True)
        return answers

    def notes(self):
        return []


@pytest.fixture
def pupil(monkeypatch):
    monkeypatch.setattr(pass_rate, "load_generator", lambda context: Pupil())


def measure(rows, settings, **more):
    context = make_context(**{"cache": None, "pass_rate": settings, "device": "cpu", **more})
    return compute(th.load(rows), ["pass_rate"], context)


def test_passes_are_counted_over_answers_and_cut_ones_count_as_they_stand(pupil):
    values = measure(ROWS, PassRateSettings(n_samples=4))["pass_rate"]
    assert values["passed"].tolist() == [0, 1, 2, 2, 4]
    assert values["drawn"].tolist() == [4, 4, 4, 3, 4]


def test_a_row_whose_answers_were_all_cut_and_none_right_says_so(monkeypatch):
    cut = SimpleNamespace(generate=lambda rows, decoding, **_: [[Generation("It", is_cut=True)] * 4 for _ in rows])
    cut.notes = list
    monkeypatch.setattr(pass_rate, "load_generator", lambda context: cut)
    missing = measure(ROWS[:2], PassRateSettings(n_samples=4)).missing["pass_rate"].to_list()
    assert missing == ["none of its answers ended before max_new_tokens, and none was right; raise max_new_tokens"] * 2


def test_the_selector_puts_rows_that_are_right_half_of_the_time_first(pupil):
    subset = th.select(ROWS, "pass-rate", budget="score>0", settings={"n_samples": 4}, device="cpu")
    assert {row["question"] for row in subset.rows} == {ROWS[n]["question"] for n in (1, 2, 3)}
    assert subset.manifest.content["notes"]["never_right"] == 1
    assert subset.manifest.content["notes"]["always_right"] == 1
    best = th.select(ROWS, "pass-rate", budget=1, settings={"n_samples": 4}, device="cpu")
    assert best.rows[0]["question"] in {ROWS[n]["question"] for n in (2, 3)}  # equal


def test_the_score_is_the_unbiased_variance_of_the_reward():
    rng = np.random.default_rng(0)
    passed = rng.binomial(8, 0.3, 20_000)
    assert np.mean(passed * (8 - passed) / (8 * 7)) == pytest.approx(0.3 * 0.7, abs=0.003)


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_pass_at_k_counts_the_draws_without_a_right_answer(k):
    for n_passed in range(9):
        assert estimate_pass_k(8, n_passed, k) == pytest.approx(1 - comb(8 - n_passed, k) / comb(8, k))


def test_a_response_in_which_the_check_finds_nothing_gives_a_reason(pupil):
    rows = [*ROWS, {"question": "how much is 5 and 5?", "answer": "ten"}]
    found = measure(rows, PassRateSettings(n_samples=4, check="number"))
    assert found.missing["pass_rate"][5] == "the check 'number' finds nothing to compare in its response"
    assert np.isnan(found["pass_rate"]["passed"][5])


def test_plain_text_and_unknown_checks_are_refused():
    with pytest.raises(InputError, match="pass_rate: rows need a prompt and a response, found plain text"):
        measure([{"text": "words"}], PassRateSettings())
    with pytest.raises(NotFoundError, match="check 'numbers' not found.*did you mean 'number'"):
        th.select(ROWS, "pass-rate", budget=1, settings={"check": "numbers"})


def test_answers_are_paid_for_once_whatever_checks_them(tiny_llama, tmp_path):
    cache = FeatureCache(tmp_path)
    settings = PassRateSettings(n_samples=2, max_new_tokens=4)
    measure(ROWS[:2], settings, model=str(tiny_llama), cache=cache)
    stages = []
    more = PassRateSettings(n_samples=3, max_new_tokens=4, check="number")
    measure(ROWS[:2], more, model=str(tiny_llama), cache=cache, on_progress=stages.append)
    first = next(each for each in stages if each.stage == "pass_rate: answers")
    assert (first.n_cached, first.total) == (4, 6)
