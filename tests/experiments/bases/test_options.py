"""The options of `base` and `mix`: settings, typed copies, functions and commands say the same."""

import inspect
from dataclasses import fields
from typing import get_type_hints

import pytest

import thresher as th
from thresher.cli import base as commands
from thresher.cli.mix import mix as mix_command
from thresher.experiments.bases.settings import BaseRankOptions, BaseRankSettings
from thresher.experiments.bases.source_settings import SourceRankOptions, SourceRankSettings
from thresher.experiments.bases.transfer_settings import TransferOptions, TransferSettings
from thresher.experiments.mixing.settings import MixOptions, MixSettings
from thresher.validation import get_option

ALL = [
    (commands.rank, th.rank_bases, BaseRankSettings, BaseRankOptions),
    (commands.sources, th.rank_sources, SourceRankSettings, SourceRankOptions),
    (commands.transfer, th.transfer, TransferSettings, TransferOptions),
    (mix_command, th.mix, MixSettings, MixOptions),
]


@pytest.mark.parametrize(("command", "function", "settings", "options"), ALL)
def test_settings_options_function_and_command_say_the_same(command, function, settings, options):
    named = {field.name: field for field in fields(settings)}
    assert set(get_type_hints(options)) == set(named)
    parameters = inspect.signature(function).parameters
    assert set(parameters) - set(named) == {"pool", "eval", "on_progress"}
    has = inspect.signature(command).parameters
    for name, field in named.items():
        assert parameters[name].default == field.default
        assert (name in has) == bool(get_option(field).help), name
        if get_option(field).help:
            assert f"{name}: {get_option(field).help}" in function.__doc__
