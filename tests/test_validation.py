"""One mechanism checks settings, converts text to them, and makes the options of a command."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from pydantic import ValidationError

from thresher import validation
from thresher.errors import SettingsError
from thresher.validation import build_settings, check_settings, document_options, option


@dataclass(frozen=True, kw_only=True)
class Oven:
    trays: int = option(3, "Trays in it.", ge=1)
    heat: float | None = option(None, "Degrees.", gt=0)
    share: float = option(0.5, ge=0, le=1)
    mode: Literal["fan", "grill"] = "fan"
    names: tuple[str, ...] | Literal["auto"] = "auto"
    is_open: bool = False
    rounds: int | Literal["all"] = option("all", ge=1)
    limit: float = option(1.0, ge=0, le=math.inf)
    label: str | None = option(None, ge=1)
    sizes: tuple[int, ...] | Literal["auto"] = option("auto", "Of the trays.", ge=1)
    budget: tuple[str | int | float, ...] = ("10%",)

    def __post_init__(self) -> None:
        check_settings(self, "oven")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"trays": 0}, "oven: trays must be a whole number of at least 1, got 0"),
        ({"trays": True}, "oven: trays must be a whole number of at least 1, got True"),
        ({"trays": 2.5}, "oven: trays must be a whole number of at least 1, got 2.5"),
        ({"heat": 0}, "oven: heat must be a number above 0, got 0"),
        ({"heat": math.nan}, "oven: heat must be a number above 0, got nan"),
        ({"heat": math.inf}, "oven: heat must be a number above 0, got inf"),
        ({"share": 2}, "oven: share must be a number in 0..1, got 2"),
        ({"mode": "gril"}, "oven: mode must be one of 'fan', 'grill', got 'gril'; did you mean 'grill'?"),
        ({"names": ["x"]}, "oven: names must be a list of texts or 'auto', got ['x']"),
        ({"is_open": 1}, "oven: is_open must be true or false, got 1"),
        ({"rounds": 0}, "oven: rounds must be a whole number of at least 1 or 'all', got 0"),
        ({"label": ""}, "oven: label must be text that is not empty, got ''"),
        ({"sizes": (8, 0)}, "oven: sizes must be a list of whole numbers of at least 1 or 'auto', got (8, 0)"),
        ({"sizes": (2.5,)}, "oven: sizes must be a list of whole numbers of at least 1 or 'auto', got (2.5,)"),
        ({"budget": None}, "oven: budget must be a list of texts or numbers, got None"),
        ({"trays": 0, "is_open": 2}, "oven: trays must .*; is_open must be true or false, got 2"),
    ],
)
def test_an_illegal_value_is_refused_with_what_is_legal(settings, sentence):
    with pytest.raises(SettingsError) as refusal:
        Oven(**settings)
    if ".*" in sentence:
        assert all(part in str(refusal.value) for part in sentence.split(".*"))
    else:
        assert str(refusal.value) == sentence


def test_legal_values_are_taken_as_they_are():
    oven = Oven(trays=1, heat=1, share=1, names=("a", "b"), rounds=7, limit=math.inf, label="x")
    assert (oven.heat, oven.names, oven.rounds, oven.limit) == (1, ("a", "b"), 7, math.inf)


def test_what_is_taken_without_pydantic_is_what_pydantic_takes():
    values = [None, True, 0, 1, -1, 2.5, 0.0, 1.5, math.nan, math.inf, "", "fan", "all", "auto", "x", b"x", np.int64(3)]
    values += [(), (1,), (0,), ("a",), (1, "a"), (True,), [], [1], Oven(), {}]
    members = {name: validation._members(kind) for name, kind in validation.get_field_types(Oven).items()}
    n_plain = 0
    for field in dataclasses.fields(Oven):
        about, adapter = validation.get_option(field), validation._adapter(Oven, field.name)
        for value in values:
            if validation._is_plainly_valid(members[field.name], about, value):
                n_plain += 1
                assert adapter.validate_python(value, strict=True) == value, (field.name, value)
    assert n_plain > 25
    with pytest.raises(ValidationError):
        validation._adapter(Oven, "trays").validate_python(0, strict=True)


def test_text_becomes_the_type_of_the_field():
    values = {"trays": "4", "heat": "0.5", "is_open": "true", "names": "a, b", "rounds": "7", "mode": "grill"}
    oven = build_settings(Oven, "oven", values)
    assert oven == Oven(trays=4, heat=0.5, is_open=True, names=("a", "b"), rounds=7, mode="grill")
    assert build_settings(Oven, "oven", {"names": "auto", "rounds": "all"}) == Oven()
    assert build_settings(Oven, "oven", {"names": ["a"]}).names == ("a",)
    assert build_settings(Oven, "oven", {"sizes": "8, 16", "budget": "10%,500"}).sizes == (8, 16)


def test_numbers_of_numpy_ranges_and_single_elements_are_taken():
    values = {"sizes": np.array([8, 16]), "trays": np.int64(2), "budget": 500}
    assert build_settings(Oven, "oven", values) == Oven(sizes=(8, 16), trays=2, budget=(500,))
    assert build_settings(Oven, "oven", {"sizes": range(1, 3), "budget": [0.1, "20%"]}).budget == (0.1, "20%")


def test_the_fields_stand_in_the_signature_and_the_docstring_of_a_function():
    @document_options(Oven)
    def bake(dish, **options):
        """Bake a dish."""
        return dish, options

    assert inspect.signature(bake).parameters["trays"].default == 3
    assert "options" not in inspect.signature(bake).parameters
    assert bake.__doc__.startswith("Bake a dish.\n\nOptions:\n")
    assert "    heat: Degrees." in bake.__doc__
    assert bake("bread", trays=2) == ("bread", {"trays": 2})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"trays": "many"}, "oven: trays must be a whole number of at least 1, got 'many'"),
        ({"tray": "1"}, "oven: unknown setting 'tray'; it has: trays, .*did you mean 'trays'?"),
        ({"is_open": "perhaps"}, "oven: is_open must be true or false, got 'perhaps'"),
        ({"rounds": "0"}, "oven: rounds must be a whole number of at least 1 or 'all', got '0'"),
    ],
)
def test_text_that_does_not_fit_is_refused(values, sentence):
    with pytest.raises(SettingsError) as refusal:
        build_settings(Oven, "oven", values)
    assert all(part in str(refusal.value) for part in sentence.split(".*"))


def test_a_setting_without_a_default_must_be_given():
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        column: str = option(help="A column.")

    with pytest.raises(SettingsError, match="needy: needs the setting 'column', found none; give column=VALUE"):
        build_settings(Needy, "needy", {})


def test_a_class_with_an_unknown_type_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Odd:
        value: Nowhere = 1  # noqa: F821

    with pytest.raises(SettingsError, match="Odd: the type of a setting must be importable"):
        check_settings(Odd(), "odd")
