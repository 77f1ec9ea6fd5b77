"""Methods with their settings and quotas in a TOML file."""

from __future__ import annotations

import pytest

import thresher as th
from thresher.errors import InputError
from thresher.experiments.own.method_file import list_methods
from thresher.experiments.rankings import MethodName

FILE = """
[[methods]]
name = "facility-location"
quota = "label=sqrt"
n_neighbors = 16

[[methods]]
name = "prototypes"
balance = "proportional"

[[methods]]
name = "random#2"
"""


def test_a_file_names_methods_as_the_command_line_does(tmp_path):
    path = tmp_path / "methods.toml"
    path.write_text(FILE)
    methods = list_methods([str(path), "length"], "compare")
    assert methods == [
        "random",
        "facility-location quota=label=sqrt n_neighbors=16",
        "prototypes balance=proportional",
        "random#2",
        "length",
    ]
    parsed = MethodName.parse(methods[1])
    assert (parsed.quota, parsed.build({}).n_neighbors) == ("label=sqrt", 16)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("methods = 3", "must hold .*methods.* and nothing else, found methods"),
        ("[[methods]]\nquota = 'label=sqrt'", "must have a name"),
        ("[[methods]]\nname = 'length'\nn = [1]", "length: n must be a number"),
        ("[[methods]]\nname = 'length'\nn = 'a b'", "a text without spaces, got 'a b'"),
        ("[[methods]\n", "must be a readable TOML file"),
        ("[[methods]]\nname = 'length'\n[more]\na = 1", "nothing else, found methods, more"),
    ],
)
def test_what_is_no_list_of_methods_is_refused(tmp_path, content, words):
    path = tmp_path / "methods.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        list_methods([str(path)], "compare")
    with pytest.raises(InputError, match="No such file"):
        list_methods([str(tmp_path / "none.toml")], "compare")


def test_a_setting_that_a_method_does_not_have_is_refused(tmp_path, pool, test_rows):
    path = tmp_path / "methods.toml"
    path.write_text("[[methods]]\nname = 'prototypes'\nbalanse = 'sqrt'\n")
    with pytest.raises(th.ThresherError, match="did you mean 'balance'"):
        th.compare(pool, eval=test_rows, methods=str(path), budget="20", seeds=2)
