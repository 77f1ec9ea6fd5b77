"""Keyword options are described once: the typed copies for type checkers name the same fields."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

import thresher as th
from thresher.dataset.loading import LoadOptions
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.dataset.values.given_settings import GivenOptions, GivenSettings
from thresher.features.table import ScoreOptions
from thresher.models.settings import ModelOptions, ModelSettings
from thresher.selection.settings import SelectOptions, SelectSettings


@pytest.mark.parametrize(
    ("typed", "groups"),
    [
        (ReadOptions, [ReadSettings]),
        (LoadOptions, [ReadSettings, GivenSettings]),
        (GivenOptions, [GivenSettings]),
        (ModelOptions, [ModelSettings]),
        (SelectOptions, [SelectSettings, GivenSettings, ModelSettings]),
        (ScoreOptions, [GivenSettings, ModelSettings]),
    ],
)
def test_the_typed_copy_names_the_fields_of_the_settings(typed, groups):
    assert set(typed.__annotations__) == {field.name for group in groups for field in fields(group)}


@pytest.mark.parametrize(
    ("function", "groups"),
    [
        (th.load, [ReadSettings, GivenSettings]),
        (th.select, [SelectSettings, GivenSettings, ModelSettings]),
        (th.plan, [SelectSettings, GivenSettings, ModelSettings]),
        (th.score, [GivenSettings, ModelSettings]),
        (th.curate, [ModelSettings]),
    ],
)
def test_signature_and_help_show_every_option(function, groups):
    parameters = inspect.signature(function).parameters
    for field in (field for group in groups for field in fields(group)):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{field.name}: " in function.__doc__


def test_an_unknown_option_is_refused_with_the_nearest_name():
    with pytest.raises(th.ThresherError, match="select: unknown option 'budgt'.*did you mean 'budget'"):
        th.select([{"text": "a", "label": "b"}], budgt=3)
    with pytest.raises(th.ThresherError, match="select: needs the setting 'budget'"):
        th.select([{"text": "a", "label": "b"}])
