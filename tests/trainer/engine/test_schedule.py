import math

import pytest

from thresher.trainer.engine.schedule import compute_rate_share


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_rises_to_one_and_falls_towards_zero_without_a_step_at_zero(schedule):
    rates = [compute_rate_share(step, 100, schedule=schedule, warmup_share=0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[9] == rates[10] == 1.0
    assert all(a > b > 0 for a, b in zip(rates[10:], rates[11:], strict=False))


def test_cosine_matches_the_formula_at_the_middle():
    assert compute_rate_share(50, 100, schedule="cosine", warmup_share=0) == pytest.approx(
        0.5 * (1 + math.cos(math.pi / 2))
    )


def test_constant_stays_at_the_peak():
    assert {compute_rate_share(step, 20, schedule="constant", warmup_share=0.1) for step in range(2, 20)} == {1.0}


def test_one_step_is_taken_at_the_full_rate():
    assert compute_rate_share(0, 1, schedule="cosine", warmup_share=0.1) == 1.0
