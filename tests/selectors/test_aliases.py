"""Names of methods in their papers."""

import json

import pytest

from thresher.cli.main import main
from thresher.errors import NotFoundError
from thresher.selectors import create
from thresher.selectors.aliases import ALIASES

MEANT = {
    "less": ("gradient", {}),
    "ifd": ("difficulty", {}),
    "superfiltering": ("difficulty", {"ratio": "perplexity"}),
    "rds+": ("target-similarity", {"kernel": "hidden_state"}),
    "bm25": ("target-similarity", {"kernel": "bm25"}),
    "sift": ("target-similarity", {"form": "sift"}),
    "qdit": ("quality-diversity", {}),
    "slick": ("known-unknown", {}),
    "clear": ("confidence", {}),
    "bsdetector": ("confidence", {}),
    "davir": ("learnability", {"form": "relative"}),
    "lobass": ("learnability", {"form": "difference"}),
    "coreset": ("k-center", {}),
    "cover*margin": ("uncertainty-coverage", {}),
    "margin-coverage": ("uncertainty-coverage", {}),
}


def test_each_alias_is_the_method_of_that_name():
    assert set(MEANT) == set(ALIASES)
    for alias, (name, settings) in MEANT.items():
        assert create(alias) == create(alias.upper()) == create(name, settings)


def test_settings_of_the_user_are_added_to_those_of_an_alias():
    assert create("lobass", {"folds": "3"}) == create("learnability", {"form": "difference", "folds": 3})


@pytest.mark.parametrize("guess", ["craig", "deita", "lead", "grad-match", "herd", "k-means", "el2n", "dsir", "d4"])
def test_another_method_is_never_suggested_for_a_name_that_is_not_ours(guess):
    with pytest.raises(NotFoundError) as caught:
        create(guess)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(("guess", "near"), [("k-centre", "k-center"), ("lobas", "lobass"), ("gradients", "gradient")])
def test_a_slip_of_the_pen_is_corrected(guess, near):
    with pytest.raises(NotFoundError, match=f"did you mean '{near}'"):
        create(guess)


def test_the_list_and_the_description_tell_the_aliases(capsys):
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for alias in (*ALIASES, "semdedup"):
        assert alias in listed.replace("[", " ").replace("]", " ").replace(",", " ").split()
    assert main(["methods", "lobass"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("lobass = learnability form=difference\n")
    assert "--set form=difference" in shown
    assert main(["methods", "less", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["name"], described["aliases"]) == ("gradient", ["less"])


def test_semdedup_is_told_to_be_a_rule(capsys):
    assert main(["methods", "semdedup"]) == 2
    assert "is the curation rule 'semantic-duplicates'" in capsys.readouterr().err
