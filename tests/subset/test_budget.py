import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.errors import InputError
from thresher.subset.budget import Budget, parse_budget
from thresher.subset.quota import Quota, parse_quota


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        (500, "rows", 500),
        ("500", "rows", 500),
        ("10k", "rows", 10_000),
        ("0.57M rows", "rows", 570_000),
        ("12,000 rows", "rows", 12_000),
        ("30%", "share", 0.3),
        (0.3, "share", 0.3),
        ("0.3", "share", 0.3),
        ("1", "rows", 1),
        ("1.0", "share", 1.0),
        ("200ktok", "tokens", 200_000),
        ("1.5Mtok", "tokens", 1_500_000),
        ("800 tokens", "tokens", 800),
        ("score>0.8", "threshold", 0.8),
        ("score > -2", "threshold", -2.0),
    ],
)
def test_every_form_of_a_budget_is_understood(text, unit, amount):
    assert parse_budget(text) == Budget(unit, amount)


@pytest.mark.parametrize(
    "value", ["", "lots", "0", 0, "0%", 0.0, -3, "-3", "120%", 1.5, True, None, "score>", float("nan")]
)
def test_a_budget_that_is_no_budget_is_refused_with_the_value(value):
    with pytest.raises(InputError, match="budget: ") as caught:
        parse_budget(value)
    assert repr(value) in str(caught.value)


def test_a_budget_larger_than_the_pool_names_both_numbers():
    with pytest.raises(InputError, match="at most the 10 usable rows of the pool, got 11"):
        parse_budget(11).n_rows(10)
    with pytest.raises(InputError, match=r"of the pool \(not usable: 3 x no label; 1 x no text\), got 11"):
        parse_budget(11).n_rows(10, unusable={"no label": 3, "no text": 1})
    with pytest.raises(InputError, match="at most the 30 tokens of the pool, got 31"):
        parse_budget("31tok").n_rows(3, np.array([10, 10, 10]))


def test_a_share_of_a_tiny_pool_keeps_at_least_one_row():
    assert parse_budget("1%").n_rows(3) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 400))
def test_rows_needed_for_tokens_is_an_upper_bound(lengths, tokens):
    lengths = np.array(lengths)
    if not lengths.min() <= tokens <= lengths.sum():
        return
    bound = Budget("tokens", tokens).n_rows(len(lengths), lengths)
    ranking = np.random.default_rng(0).permutation(len(lengths))
    kept = int(np.searchsorted(np.cumsum(lengths[ranking]), tokens, side="right"))
    assert kept <= bound <= len(lengths)


CODES = np.array([0] * 60 + [1] * 30 + [2] * 10)
NAMES = ["a", "b", "c"]


def counts(ranking, k):
    return np.bincount(CODES[ranking[:k]], minlength=3)


def test_a_proportional_quota_keeps_the_proportions_in_every_prefix():
    ranking = Quota("x").reorder(np.arange(100), CODES, NAMES)
    for k in range(1, 101):
        assert np.abs(counts(ranking, k) - k * np.array([0.6, 0.3, 0.1])).max() <= 1


def test_a_balanced_quota_is_equal_until_a_group_runs_out():
    ranking = Quota("x", "balanced").reorder(np.arange(100), CODES, NAMES)
    assert counts(ranking, 30).tolist() == [10, 10, 10]
    assert counts(ranking, 50).tolist() == [20, 20, 10]


def test_named_shares_are_kept_and_the_star_takes_the_rest():
    ranking = parse_quota("x:c=50%,*=50%").reorder(np.arange(100), CODES, NAMES)
    assert counts(ranking, 12).tolist() == [4, 2, 6]


def test_limits_cut_each_group_and_keep_the_order_of_rank():
    ranking = parse_quota("x:a<=5,*<=2").reorder(np.arange(100)[::-1], CODES, NAMES)
    assert counts(ranking, 100).tolist() == [5, 2, 2]
    assert ranking.tolist() == [99, 98, 89, 88, 59, 58, 57, 56, 55]


def test_a_quota_keeps_the_order_of_rank_within_each_group():
    order = np.random.default_rng(1).permutation(100)
    ranking = Quota("x", "balanced").reorder(order, CODES, NAMES)
    for group in range(3):
        assert ranking[CODES[ranking] == group].tolist() == order[CODES[order] == group].tolist()


def test_a_share_of_zero_leaves_a_group_out():
    ranking = parse_quota("x:a=1,b=1,c=0").reorder(np.arange(100), CODES, NAMES)
    assert sorted(set(CODES[ranking])) == [0, 1]


@pytest.mark.parametrize(
    "text", ["", "=balanced", "label=lots", "label:", "label:a", "label:a=1,b<=2", "label:a=0", {"label": 1}]
)
def test_a_quota_that_is_no_quota_is_refused(text):
    with pytest.raises(InputError, match="quota: must be"):
        parse_quota(text)


def test_a_quota_on_a_value_that_does_not_occur_lists_those_that_do():
    with pytest.raises(InputError, match="'d' is not a value of this column; its values: a, b, c"):
        parse_quota("x:d=1,*=1").reorder(np.arange(100), CODES, NAMES)


def test_a_quota_without_a_share_for_a_value_says_which():
    with pytest.raises(InputError, match="'b' has none"):
        parse_quota("x:a=1,c=1").reorder(np.arange(100), CODES, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "label",
        "label=balanced",
        "source:a=0.7,b=0.3",
        "label:a<=5,*<=2",
        'source:"a, b.jsonl"=0.7,"x=1"=0.3',
        '"a:b"=sqrt',
        '"a:b":"5"" pipe, long"<=5,*<=2',
        'source:5" pipe=0.5,*=1',
    ],
)
def test_a_quota_reads_back_what_it_prints(text):
    assert parse_quota(str(parse_quota(text))) == parse_quota(text)


@pytest.mark.parametrize("value", ["9" * 400 + "tok", "9" * 5000, 10**400])
def test_a_number_too_large_for_a_float_is_refused(value):
    with pytest.raises(InputError, match="must be at most 1000000000000000"):
        parse_budget(value)


def test_budgets_and_quotas_that_differ_print_differently():
    assert str(parse_budget("12.3456781%")) != str(parse_budget("12.3456782%"))
    assert str(parse_budget("score>0.12345678")) == "score>0.12345678"
    assert str(parse_quota("x:a=0.12345678,*=1")) == "x:a=0.12345678,*=1"
    tiny = Quota("x", {"a": 2.5e-7, "*": 1.0})
    assert parse_quota(str(tiny)) == tiny


@pytest.mark.parametrize("text", ["label:*<=50%", "label:a<=0.5"])
def test_a_limit_that_is_no_whole_number_is_refused(text):
    with pytest.raises(InputError, match="a limit must be a whole number of rows"):
        parse_quota(text)


def curve_folder(folder, *, is_whole_pool=True, **methods):
    """Write the answer of a curve: method -> (verdict, upper end, score at the largest size)."""
    content = {
        name: {
            "enough": {"verdict": verdict, "high": high, "rows": high, "of": 1000, "is_whole_pool": is_whole_pool},
            "points": [{"n_rows": 10, "value": 0.1}, {"n_rows": 20, "value": value}],
        }
        for name, (verdict, high, value) in methods.items()
    }
    (folder / "saturation.json").write_text(json.dumps({"is_higher_better": True, "methods": content}))
    return f"saturation:{folder}"


def test_the_answer_of_a_curve_is_that_of_the_method_that_will_choose(tmp_path):
    answers = {"random": ("enough", 200, 0.5), "herding": ("all", 990, 0.8), "length": ("cannot tell", 900, 0.9)}
    curve = curve_folder(tmp_path, **answers)
    assert parse_budget(curve, method="random").amount == 200
    assert parse_budget(curve, method="herding").amount == 1000
    with pytest.raises(InputError, match=r"it cannot .length: cannot tell.; its answer says what would help"):
        parse_budget(curve, method="length")
    with pytest.raises(InputError, match=r"it cannot .herding: all."):
        parse_budget(curve_folder(tmp_path, is_whole_pool=False, **answers), method="herding")


def test_an_incomplete_curve_is_no_budget(tmp_path):
    curve = curve_folder(tmp_path, random=("enough", 200, 0.5))
    path = tmp_path / "saturation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unfinished": [{"reason": "killed"}]}))
    with pytest.raises(InputError, match="holds an incomplete curve; complete it with the command that wrote it"):
        parse_budget(curve, method="random")


def test_a_method_that_the_curve_does_not_have_takes_the_answer_of_the_best_score(tmp_path):
    curve = curve_folder(tmp_path, random=("enough", 200, 0.5), herding=("enough", 800, 0.8))
    assert parse_budget(curve, method="k-center").amount == parse_budget(curve).amount == 800


def test_names_with_signs_of_the_forms_stand_in_quotes():
    names = ["a, b.jsonl", "x=1", "x<=1", '"quoted"', " outer ", "https://host/c.jsonl"]
    quota = Quota("the:source", {name: 1 + number for number, name in enumerate(names)})
    assert parse_quota(str(quota)) == quota
    assert parse_quota('source:"a, b"=70%,*=30%').shares == {"a, b": 0.7, "*": 0.3}
    with pytest.raises(InputError, match="quota: must be COLUMN"):
        parse_quota('source:"a, b=70%,*=30%')
