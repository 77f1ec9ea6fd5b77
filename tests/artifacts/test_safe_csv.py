import csv
import io

import polars as pl

from thresher.artifacts.safe_csv import escape_formulas, unescape_formulas

TEXTS = ["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=x", "'", "", None, "plain", "a=b"]


def test_no_text_is_a_formula_and_none_is_lost():
    table = pl.DataFrame({"text": TEXTS, "other": TEXTS[::-1], "number": [-1.0] * len(TEXTS)})
    escaped = escape_formulas(table)
    assert unescape_formulas(escaped).equals(table)
    written = list(csv.DictReader(io.StringIO(escaped.write_csv())))
    assert [row["text"][:1] for row in written if row["text"][:1] in "=+-@\t\r"] == ["", ""]
    assert {row["number"] for row in written} == {"-1.0"}


def test_scores_as_csv_hold_the_ids_of_rows_as_text_and_are_read_back(tmp_path, monkeypatch):
    import thresher as th

    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    rows = th.load(pl.DataFrame({"id": ["=cmd|x", "b"], "text": ["one", "two words"]}), id_column="id")
    first = th.score(rows, ["length"], out=tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[1].startswith("'=cmd|x,")
    again = th.score(rows, ["length"], out=tmp_path / "scores.csv")
    assert again.frame["row_id"].to_list() == first.frame["row_id"].to_list() == ["=cmd|x", "b"]
