import pytest

from thresher.evaluation.generation import score_answers


def test_exact_match_ignores_white_space_at_the_ends_only():
    assert score_answers(["Paris ", "Pa ris", "paris"], ["Paris"] * 3).exact_match == [True, False, False]


def test_a_thought_counts_only_where_the_reference_has_one():
    thought = "<think>\n\n</think>\n\nParis"
    assert score_answers(
        [thought, thought, "Paris", "Paris <think>x</think>"], ["Paris", thought, thought, "Paris"]
    ).exact_match == [
        True,
        True,
        False,
        False,
    ]
    assert score_answers([thought], ["Paris"]).chrf == [100.0]


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence():
    # words in common, in order: the, cat, mat (3); 4 words against 5
    (scores,) = score_answers(["the cat mat sat"], ["the cat on the mat"]).rouge_l
    assert scores == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5))


def test_chrf_is_100_for_equal_texts_and_0_for_texts_that_share_nothing():
    assert score_answers(["abcdef", "abcdef"], ["abcdef", "uvwxyz"]).chrf == [100.0, 0.0]


def test_an_empty_answer_scores_nothing():
    scores = score_answers([""], ["Paris"])
    assert (scores.exact_match, scores.rouge_l, scores.chrf) == ([False], [0.0], [0.0])


def test_each_mean_has_its_error_and_n():
    estimates = score_answers(["a b", "c d"], ["a b", "x y"]).estimates()
    assert set(estimates) == {"exact_match", "rouge_l", "chrf"}
    assert all(estimate.n == 2 and estimate.stderr > 0 for estimate in estimates.values())
