import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

import thresher as th
from thresher import plugins
from thresher.curation import Rule, drop_where
from thresher.curation.rule import RULES
from thresher.errors import SettingsError
from thresher.features.registry import FEATURES, FeatureProvider
from thresher.selectors import Requirements, Selector
from thresher.selectors.registry import SELECTORS
from thresher.subset.scores import Scores

POINTS = "[thresher.selectors]\nodd-one = odd:Odd\n"


def install(place, points=POINTS):
    about = place / "odd-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)


@pytest.fixture
def n_scans(monkeypatch):
    scans = []

    def counted(scan=plugins.entry_points):
        scans.append(1)
        return scan()

    monkeypatch.setattr(plugins, "entry_points", counted)
    return lambda: len(scans)


def test_the_installed_packages_are_looked_through_once(n_scans):
    first = plugins.available("thresher.selectors")
    first.clear()  # nobody's copy is another's
    assert "facility-location" in plugins.available("thresher.selectors")
    assert "exact-duplicates" in plugins.available("thresher.curation")
    assert n_scans() == 1


def test_what_is_installed_while_we_run_is_found(tmp_path, monkeypatch, n_scans):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert "odd-one" not in plugins.available("thresher.selectors")
    install(tmp_path)
    assert "odd-one" in plugins.available("thresher.selectors")
    assert n_scans() == 2


def test_what_lies_on_a_new_path_is_found(tmp_path, monkeypatch):
    install(tmp_path)
    assert "odd-one" not in plugins.available("thresher.selectors")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert "odd-one" in plugins.available("thresher.selectors")


class ByLength(Selector):
    name = "by-length"
    requirements = Requirements(features={"length"})

    def score(self, features, *, n_ranked, rng):
        return Scores(row_id=features.row_id, value=features["length"].astype(float), by=self.name)


class NoNames(Rule):
    name = "no-names"

    def check(self, pool, *, existing, eval, rng):
        return drop_where(np.zeros(len(pool), np.bool_), "never", "never")


class Ones(FeatureProvider):
    name = "ones"

    def describe(self, context):
        return {}

    def compute(self, dataset, context):
        return np.ones(len(dataset))


@dataclass(frozen=True, kw_only=True)
class AlmostASetting(ByLength):
    requirments: frozenset = frozenset({"embedding"})


def load(registry, cls, monkeypatch):
    class Point:
        name = "odd"

        def load(self):
            return cls() if not isinstance(cls, type) else cls

    monkeypatch.setattr(plugins, "entry_points", lambda: SimpleNamespace(select=lambda group: [Point()]))
    return registry.load("odd")


@pytest.mark.parametrize(
    ("registry", "base", "member", "near"),
    [
        (SELECTORS, ByLength, "requirments", "requirements"),
        (SELECTORS, ByLength, "rank_only", "ranks_only"),
        (SELECTORS, ByLength, "estimate_memry", "estimate_memory"),
        (RULES, NoNames, "preceeds", "precedes"),
        (RULES, NoNames, "private", "is_private"),
        (FEATURES, Ones, "pairwise", "is_pairwise"),
        (FEATURES, Ones, "whole_pool_kind", "whole_pool_kinds"),
    ],
)
def test_a_misspelled_member_is_refused_when_the_plug_in_is_loaded(registry, base, member, near, monkeypatch):
    cls = type("Odd", (base,), {member: True})
    message = f"{registry.kind} 'odd': unknown member '{member}'; did you mean '{near}'"
    with pytest.raises(SettingsError, match=message):
        load(registry, cls, monkeypatch)
    assert load(registry, type("Odd", (base,), {f"_{member}": True}), monkeypatch).__name__ == "Odd"


def test_a_member_like_no_other_is_refused_with_all_that_there_are(monkeypatch):
    cls = type("Odd", (ByLength,), {"accepts": frozenset()})
    with pytest.raises(SettingsError, match=r"unknown member 'accepts'; it may have: .*requirements.*begin with _"):
        load(SELECTORS, cls, monkeypatch)


def test_a_misspelled_member_among_the_settings_is_refused(monkeypatch):
    with pytest.raises(SettingsError, match="unknown member 'requirments'; did you mean 'requirements'"):
        load(SELECTORS, AlmostASetting, monkeypatch)


def test_a_missing_member_is_refused(monkeypatch):
    cls = type("Odd", (Selector,), {"name": "odd"})
    with pytest.raises(SettingsError, match="selector 'odd': needs the member 'score', found none"):
        load(SELECTORS, cls, monkeypatch)


def test_a_class_without_the_base_is_refused(monkeypatch):
    with pytest.raises(
        SettingsError, match=r"selector 'odd': must inherit from thresher\.selectors\.contract\.Selector"
    ):
        load(SELECTORS, Ones, monkeypatch)


def test_a_misspelled_requirement_is_refused_with_the_name_of_the_plug_in(monkeypatch):
    def import_module():
        return Requirements(feature={"length"})

    with pytest.raises(
        SettingsError, match="selector 'odd': its requirements have no 'feature'; did you mean 'features'"
    ):
        load(SELECTORS, import_module, monkeypatch)
    with pytest.raises(SettingsError, match="must have a set of names as features, got 'length'"):
        Requirements(features="length")


def test_an_object_is_held_to_the_contract_too():
    odd = type("Odd", (ByLength,), {"rank_only": True})()
    with pytest.raises(SettingsError, match="selector 'by-length': unknown member 'rank_only'"):
        th.select([{"text": "a", "label": "b"}], odd, budget=1)
    rule = type("Odd", (NoNames,), {"is_privat": True})()
    with pytest.raises(SettingsError, match="rule 'no-names': unknown member 'is_privat'; did you mean 'is_private'"):
        th.curate([{"text": "a", "label": "b"}], [rule])


def test_an_unknown_member_of_another_base_does_not_matter(monkeypatch):
    class Mixin:
        helper: ClassVar[int] = 1

    assert load(SELECTORS, type("Odd", (ByLength, Mixin), {}), monkeypatch).helper == 1
