"""The report of each kind of folder: its files, its HTML as a parser reads it, and its errors."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import polars as pl
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import ManifestError
from thresher.reporting import report

KINDS = ("subset", "curated", "adapter", "curve", "comparison", "tuning")
FIGURES = {
    "subset": {"map", "scores"},
    "curated": set(),
    "adapter": {"metrics", "loss_curve", "classes"},
    "curve": {"curve", "slices-1", "map"},
    "comparison": {"forest", "map"},
    "tuning": {"early_final"},
}


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_and_each_figure_lie_in_the_folder_and_nothing_else_changes(kind, pages, folders):
    folder, _ = pages[kind]
    before, after = hashes(folders[kind]), hashes(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"report.html"} | {f"{n}.{s}" for n in FIGURES[kind] for s in ("png", "svg")}
    for name in FIGURES[kind]:
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert b"<svg" in (folder / f"{name}.svg").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_folder_gives_the_same_bytes(kind, pages):
    folder, _ = pages[kind]
    first = hashes(folder)
    report(folder)
    assert hashes(folder) == first


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_from_anywhere(kind, pages):
    folder, page = pages[kind]
    for element in page.elements:
        for name, value in element["attrs"].items():
            if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction", "ping"):
                assert element["tag"] == "a", (element["tag"], name)
                assert value.startswith("#") or (folder / value).is_file(), value
    assert not page.all("link", "iframe", "object", "embed", "img", "base", "form")
    for style in page.all("style"):
        assert not re.search(r"url\(|@import|https?:", style["text"])
    (policy,) = [m["attrs"]["content"] for m in page.all("meta") if m["attrs"].get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_stays_text(kind, pages):
    _, page = pages[kind]
    scripts = page.all("script")
    data = [script for script in scripts if script["attrs"].get("type") == "application/json"]
    assert len(scripts) == 1 + len(data)
    for script in data:
        assert "<" not in script["text"]
        json.loads(script["text"])
    for element in page.elements:
        assert not [name for name in element["attrs"] if name.startswith("on") or name == "style"], element
    seen = [element["text"] for element in page.all("td", "th", "p", "h4")]
    assert any("<script>alert('x')</script>" in text for text in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hashes_of_the_policy_are_those_of_our_style_and_script(kind, pages):
    import base64

    _, page = pages[kind]
    (policy,) = [m["attrs"]["content"] for m in page.all("meta") if m["attrs"].get("http-equiv")]
    own = [page.all("style")[0], next(s for s in page.all("script") if "type" not in s["attrs"])]
    for element in own:
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize("kind", KINDS)
def test_landmarks_and_headings_are_in_order(kind, pages):
    _, page = pages[kind]
    assert [len(page.all(tag)) for tag in ("header", "main", "nav", "footer", "h1")] == [1, 1, 1, 1, 1]
    assert page.all("html")[0]["attrs"]["lang"] == "en"
    levels = [int(element["tag"][1]) for element in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), levels
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert element["attrs"].get(name, ids[0]) in ids
        if element["tag"] == "a" and element["attrs"]["href"].startswith("#"):
            assert element["attrs"]["href"][1:] in ids


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure_has_words_and_numbers(kind, pages):
    _, page = pages[kind]
    n = len(FIGURES[kind])
    assert len(page.all("figure")) == len(page.all("figcaption")) == n
    for figure in page.all("figure"):
        assert figure["attrs"]["aria-labelledby"]
    tables_in_figures = [table for table in page.all("table") if "figure" in table["inside"]]
    assert len(tables_in_figures) == n
    assert all("details" in table["inside"] for table in tables_in_figures)
    assert len(page.all("caption")) == len(page.all("table"))
    for heading in page.all("th"):
        assert heading["attrs"]["scope"] in ("col", "row")
    for svg in page.all("svg"):
        attrs = svg["attrs"]
        assert (
            attrs.get("aria-hidden") == "true"
            or attrs.get("role") == "img"
            or "track" in str(svg["inside"])
            or ("td" in svg["inside"])
        )
        if attrs.get("role") == "img":
            assert len(attrs["aria-label"]) > 5


def test_the_map_shows_the_kept_rows_as_kept(pages):
    folder, page = pages["subset"]
    (script,) = [s for s in page.all("script") if s["attrs"].get("id") == "data-map"]
    data = json.loads(script["text"])
    from thresher.subset.subset import read_subset_rows

    kept = set(read_subset_rows(folder).frame["prompt"])
    panel = data["panels"][0]
    assert sorted(panel["kept"] + panel["dropped"]) == list(range(120))
    assert all(
        any(text.startswith(data["text"][i][:50]) for text in kept) for i in panel["kept"] if "<" not in data["text"][i]
    )
    assert len(panel["kept"]) == 48


def test_verdicts_in_other_metrics_stand_beside(pages):
    _, page = pages["comparison"]
    cells = [element["text"] for element in page.all("td", "th")]
    assert "macro F1" in cells
    assert "better by 9.1 points [7.2, 11.0]" in cells


def test_a_shortfall_is_told(copy_folder, edit_json):
    folder = copy_folder("subset")
    with edit_json(folder / "manifest.json") as content:
        content["shortfall"] = "1 of the 16 requested rows were kept"
    text = report(folder).read_text()
    assert "Fewer rows than requested: 1 of the 16 requested rows were kept." in text


def test_the_public_name_takes_a_folder_and_an_object_that_lies_in_one(copy_folder):
    folder = copy_folder("subset")
    page = th.report(folder)
    assert page == folder / "report.html"
    words = page.read_bytes()
    assert th.open(folder).report() == page
    assert page.read_bytes() == words


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "must be a folder that thresher wrote, found nothing"),
        (lambda path: path.write_text("x"), "must be a folder that thresher wrote, found a file"),
        (lambda path: path.mkdir(), "found no manifest.json"),
    ],
)
def test_a_path_that_thresher_did_not_write_is_refused_in_one_sentence(prepare, message, tmp_path, capsys):
    prepare(tmp_path / "dir")
    assert main(["report", str(tmp_path / "dir")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_kind_without_a_page_is_refused(copy_folder, edit_json):
    folder = copy_folder("subset")
    with edit_json(folder / "manifest.json") as content:
        content["kind"] = "cell"
    with pytest.raises(ManifestError, match="kind 'cell' has no page"):
        report(folder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("subset", "dropped.parquet"),
        ("adapter", "metrics.json"),
        ("curve", "saturation.json"),
        ("comparison", "cells.csv"),
    ],
)
def test_a_missing_or_damaged_file_is_named(kind, name, copy_folder):
    folder = copy_folder(kind)
    (folder / name).write_bytes(b"\x00broken")
    with pytest.raises(ManifestError, match=re.escape(name)):
        report(folder)
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=re.escape(name)):
        report(folder)
    assert not (folder / "report.html").exists()


def test_a_manifest_that_lost_a_key_is_named(copy_folder, edit_json):
    folder = copy_folder("subset")
    with edit_json(folder / "manifest.json") as content:
        del content["counts"]
    with pytest.raises(ManifestError, match="must have counts"):
        report(folder)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_a_pool_of_a_few_equal_rows_has_a_map(n, tmp_path):
    from thresher.dataset import load
    from thresher.selection.run import select

    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"text": "the same", "label": "a"}) + "\n" for _ in range(n)))
    select(load(path), "random", budget=1, out=tmp_path / "few")
    assert 'id="figure-map"' in report(tmp_path / "few").read_text()


@pytest.mark.slow
def test_the_page_of_100_000_rows_is_small(tmp_path, read_report):
    from thresher.dataset import load
    from thresher.selection.run import select

    n = 100_000
    words = [f"word{i}" for i in range(997)]
    frame = pl.DataFrame({"i": range(n)}).select(
        text=pl.concat_str(
            *(pl.lit(" ") + pl.Series(words).gather((pl.int_range(n, eager=True) * k) % 997) for k in range(3, 40)),
            pl.col("i").cast(pl.String),
        ),
        label=pl.format("class {}", pl.col("i") % 50),
    )
    frame.write_ndjson(tmp_path / "pool.jsonl")
    select(load(tmp_path / "pool.jsonl"), "length", budget="20%", out=tmp_path / "subset")
    page = read_report(tmp_path / "subset")
    assert (tmp_path / "subset" / "report.html").stat().st_size < 2_000_000
    for name in ("map.svg", "map.png", "scores.svg"):
        assert (tmp_path / "subset" / name).stat().st_size < 3_000_000
    (script,) = [s for s in page.all("script") if s["attrs"].get("id") == "data-map"]
    panel = json.loads(script["text"])["panels"][0]
    assert len(panel["kept"]) > 300
    assert len(panel["kept"]) + len(panel["dropped"]) <= 2000
