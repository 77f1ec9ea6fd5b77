"""What every rule keeps to, ours and plug-ins' alike."""

import copy
import dataclasses

import numpy as np
import polars as pl
import pytest

from thresher.curation import Rule, Verdict, available, create
from thresher.curation.rule import ROLES, load_class
from thresher.errors import NotFoundError, SettingsError
from thresher.features.answers.pass_rate import PASS_RATE

SETTINGS = {"expression": {"where": "LENGTH(text) > 3"}, "length": {"max_words": 3}, "label-issues": {}}
NAMES = sorted(available())


def create_rule(name):
    return create(name, SETTINGS.get(name))


@pytest.fixture
def pool(rows):
    rng = np.random.default_rng(0)
    texts = [f"the row number {i % 17} tells of topic {i % 5} and of nothing else" for i in range(40)]
    embedding = rng.normal(size=(40, 8)).astype(np.float32)
    probability = rng.dirichlet(np.ones(2), size=40).astype(np.float32)
    columns = {"id": [f"r{i}" for i in range(40)], "text": texts, "label": [f"l{i % 2}" for i in range(40)]}
    return rows(
        columns,
        embedding=embedding,
        class_probability=probability,
        class_votes=np.hstack([rng.integers(0, 2, (40, 2)), rng.normal(size=(40, 2))]),
        confidence=rng.random(40),
        pass_rate=np.array([(i % 5, 4) for i in range(40)], PASS_RATE),
        length=np.arange(40),
    )


@pytest.fixture
def one(rows):
    return rows(
        {"id": ["e"], "text": ["the row number 3 tells of topic 3 and of nothing else"], "label": ["l1"]},
        embedding=np.ones((1, 8), np.float32),
        class_probability=np.array([[1.0]], np.float32),
        class_votes=np.zeros((1, 4)),
        confidence=[0.5],
        pass_rate=np.array([(2, 4)], PASS_RATE),
        length=[10],
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_is_a_rule_with_its_own_name(name):
    rule = create_rule(name)
    assert isinstance(rule, Rule)
    assert rule.name == name
    assert dataclasses.is_dataclass(rule)
    assert type(rule).__dataclass_params__.frozen
    assert set(rule.requirements.side_features) <= set(ROLES)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_and_generator_give_the_same_verdict(name, pool, one, check):
    rule = create_rule(name)
    before = copy.deepcopy(pool.dataset.frame)
    beside = {
        "existing": one if "existing" in rule.requirements.side_features else None,
        "eval": one if "eval" in rule.requirements.side_features else None,
    }
    first = check(rule, pool, **beside)
    np.random.seed(7)  # noqa: NPY002 - global state must not matter
    second = check(rule, pool, **beside)
    for field in dataclasses.fields(Verdict):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert (
            a.equals(b) if isinstance(a, pl.Series) else np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        )
    assert pool.dataset.frame.equals(before)
    assert len(first) == len(pool)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_alone_gets_a_verdict(name, one, pool, check):
    rule = create_rule(name)
    assert len(check(rule, one, eval=pool if "eval" in rule.requirements.side_features else None)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_row_has_a_sentence_and_a_duplicate_a_place(name, pool, one, check):
    rule = create_rule(name)
    verdict = check(rule, pool, eval=one if "eval" in rule.requirements.side_features else None)
    dropped = pl.Series(verdict.is_dropped)
    assert verdict.explanation.filter(dropped).is_not_null().all()
    if verdict.duplicate_of is not None:
        assert (verdict.duplicate_of.is_null() == verdict.duplicate_in.is_null()).all()
        assert verdict.duplicate_of.filter(~dropped).is_null().all()


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("exact-duplicates", "scope", "all"),
        ("exact-duplicates", "keep", "highest:"),
        ("near-duplicates", "threshold", 1.5),
        ("near-duplicates", "unit", "line"),
        ("near-duplicates", "n_gram", 0),
        ("semantic-duplicates", "threshold", 2),
        ("contamination", "overlap", 0),
        ("length", "max_words", -1),
        ("language", "languages", ()),
        ("repetition", "min_words", 0),
        ("pii", "action", "hide"),
        ("pii", "kinds", ("names",)),
        ("label-issues", "max_probability", 2),
        ("confidence", "quantile", 1.5),
        ("conflicts", "keep", "best"),
        ("expression", "where", ""),
        ("exact-duplicates", "keep", 3),
        ("exact-duplicates", "ignore_case", 3),
        ("pii", "kinds", 3),
        ("pii", "region", 3),
        ("pii", "region", True),
        ("language", "languages", ["en", 3]),
        ("repetition", "phrases", [3]),
    ],
)
def test_an_illegal_setting_is_refused_by_name(name, setting, value):
    with pytest.raises(SettingsError, match=setting):
        create(name, SETTINGS.get(name, {}) | {setting: value})


def test_settings_given_as_values_are_taken():
    assert create("language", {"languages": ["en", "de"]}).languages == ("en", "de")
    assert create("pii", {"region": None}).region is None
    assert create("exact-duplicates", {"ignore_case": False}).ignore_case is False
    assert create("confidence", {"threshold": 0.5}).threshold == 0.5


def test_settings_given_as_text_are_converted():
    assert create("near-duplicates", {"threshold": "0.5", "n_gram": "3"}).threshold == 0.5
    assert create("language", {"languages": "en,de"}).languages == ("en", "de")
    assert create("length", {"max_tokens": "12"}).max_tokens == 12
    assert create("confidence", {"threshold": "0.25"}).threshold == 0.25


def test_an_unknown_rule_is_answered_with_the_nearest():
    with pytest.raises(NotFoundError, match="rule 'near-duplicate' not found.*did you mean 'near-duplicates'"):
        load_class("near-duplicate")


def test_a_setting_that_must_be_given_is_asked_for():
    with pytest.raises(SettingsError, match="expression: needs the setting 'where'"):
        create("expression")
