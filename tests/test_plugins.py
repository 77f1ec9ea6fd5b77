import sys

import pytest

from thresher import plugins

POINTS = "[thresher.selectors]\nodd-one = odd:Odd\n"


def install(place, points=POINTS):
    about = place / "odd-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)


@pytest.fixture
def n_scans(monkeypatch):
    scans = []

    def counted(group, scan=plugins.entry_points):
        scans.append(group)
        return scan(group=group)

    monkeypatch.setattr(plugins, "entry_points", counted)
    return lambda: len(scans)


def test_the_installed_packages_are_looked_through_once(n_scans):
    first = plugins.available("thresher.selectors")
    first.clear()  # nobody's copy is another's
    assert "facility-location" in plugins.available("thresher.selectors")
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
