"""Kept rows next to dropped ones: on the page of a subset, and of a cleaned pool."""

import json

from thresher.curation.curate import curate
from thresher.dataset import load
from thresher.reporting import report
from thresher.selection.run import select


def read_sides(page):
    """Return the texts of the kept and of the dropped side of each pair."""
    sides = {"left": [], "right": []}
    for box in page.all("div"):
        if box["attrs"].get("class") in sides:
            _, _, text, *_ = box["text"].split("\n")
            sides[box["attrs"]["class"]].append(text)
    return sides["left"], sides["right"]


def test_each_of_the_largest_labels_has_a_kept_row_beside_a_dropped_one(tmp_path, read_report):
    rows = [{"text": f"{label} number {i}", "label": label} for label in ("ham", "spam", "eggs") for i in range(9)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    select(load(tmp_path / "pool.jsonl"), "stratified", budget=9, out=tmp_path / "subset")
    kept, dropped = read_sides(read_report(tmp_path / "subset"))
    assert sorted(text.split()[0] for text in kept) == ["eggs", "ham", "spam"]
    assert [text.split()[0] for text in dropped] == [text.split()[0] for text in kept]
    assert len({*kept, *dropped}) == 6


def test_a_dropped_row_that_a_kept_one_represents_stands_beside_it(tmp_path, read_report):
    texts = ["a red house by the sea", "a red house by the sea!", "stocks fell on Monday", "stocks fell on Monday."]
    rows = [{"instruction": text, "output": "Yes."} for text in texts]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    select(load(tmp_path / "pool.jsonl"), "facility-location", budget=2, encoder="static", out=tmp_path / "subset")
    kept, dropped = read_sides(read_report(tmp_path / "subset"))
    assert sorted(text[:5] for text in kept) == ["a red", "stock"]
    assert [text[:5] for text in dropped] == [text[:5] for text in kept]


def test_a_cleaned_pool_shows_the_row_that_stays_beside_its_copy_and_a_command(tmp_path, read_report):
    rows = [{"text": f"{name} walks through the wood near the old mill", "label": "x"} for name in ("Ann", "Ann", "Bo")]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curate(load(tmp_path / "pool.jsonl"), ["exact-duplicates"], out=tmp_path / "clean")
    page = read_report(tmp_path / "clean")
    assert read_sides(page) == (["Ann walks through the wood near the old mill"],) * 2
    (command,) = [element["text"] for element in page.all("code")]
    assert "thresher curate clean" in command
    assert "--rules exact-duplicates" in command
    assert page.lead.startswith("1 of 3 rows was dropped (33 %)")


def test_a_cleaned_pool_without_anything_to_drop_has_a_page(tmp_path, read_report):
    (tmp_path / "pool.jsonl").write_text('{"text": "one", "label": "x"}\n{"text": "two", "label": "y"}\n')
    curate(load(tmp_path / "pool.jsonl"), ["exact-duplicates"], out=tmp_path / "clean")
    assert report(tmp_path / "clean").is_file()
