"""Answerable: rows are dropped by how many answers agree with theirs."""

import numpy as np
import pytest

from thresher.curation import create
from thresher.errors import NotFoundError
from thresher.features.answers.pass_rate import PASS_RATE

NAN = float("nan")


def test_rows_below_the_share_are_dropped_and_untried_ones_reported(rows):
    pool = rows(
        {"id": list("abcd"), "prompt": ["q1", "q2", "q3", "q4"], "response": ["1", "2", "3", "4"]},
        pass_rate=np.array([(0, 8), (4, 8), (2, 3), (NAN, NAN)], PASS_RATE),
        missing={"pass_rate": [None, None, None, "no room"]},
    )
    verdict = create("answerable").check(pool, existing=None, eval=None, rng=np.random.default_rng(0))
    assert verdict.reason.to_list() == ["not-answerable", None, None, None]
    assert verdict.explanation.to_list() == [
        "0 of 8 sampled answers agree with its answer", None, None, "was not tried: no room"
    ]  # fmt: skip
    strict = create("answerable", {"least": 0.6}).check(pool, existing=None, eval=None, rng=np.random.default_rng(0))
    assert strict.reason.to_list() == ["not-answerable", "not-answerable", None, None]


def test_an_unknown_check_is_refused():
    with pytest.raises(NotFoundError, match="check 'numbers' not found"):
        create("answerable", {"answer_check": "numbers"})


@pytest.mark.parametrize(("passed", "drawn"), [(11, 20), (7, 100), (29, 50), (14, 25)])
def test_a_row_of_exactly_the_share_stays(rows, passed, drawn):
    pool = rows({"id": ["a"], "prompt": ["q"], "response": ["1"]}, pass_rate=np.array([(passed, drawn)], PASS_RATE))
    rule = create("answerable", {"least": float(f"{100 * passed // drawn / 100:.2f}")})
    assert rule.check(pool, existing=None, eval=None, rng=np.random.default_rng(0)).reason.to_list() == [None]
