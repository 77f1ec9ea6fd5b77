"""Grown rows against none: equal steps, one verdict, and rows that stand in the place of others."""

import json

import pytest

from thresher.cli.main import main
from thresher.dataset import load
from thresher.errors import InputError, NotFoundError
from thresher.experiments.grown.compare_grown import _join_rows, compare_grown
from thresher.reporting.build import report


@pytest.fixture(scope="module")
def grown(pool_rows):
    return load([{**row, "text": row["text"] + " indeed", "grown_from": "x"} for row in pool_rows[:20]])


@pytest.fixture(scope="module")
def result(pool, test_rows, grown, tiny_bert, quick, tmp_path_factory):
    out = tmp_path_factory.mktemp("grown") / "out"
    return compare_grown(
        grown, against=pool, eval=test_rows, model=tiny_bert, settings=quick, seeds=2, base="none", out=out
    )


def test_both_sides_take_the_steps_of_the_larger_one(result):
    cells = result.cells.sort("method", "seed")
    assert cells["method"].unique().sort().to_list() == ["with-grown", "without"]
    assert dict(zip(cells["method"], cells["n_rows"], strict=True)) == {"with-grown": 100, "without": 80}
    assert cells["steps"].unique().to_list() == [13]


def test_the_verdict_is_on_the_side_with_grown_rows(result):
    [verdict] = result.verdicts
    assert (verdict.method, verdict.n_rows) == ("with-grown", 100)
    assert result.content["baseline"] == "without"
    ours, theirs = (
        next(entry["value"] for entry in result.content["values"] if entry["method"] == name)
        for name in ("with-grown", "without")
    )
    assert verdict.effect.value == pytest.approx(ours - theirs)
    assert report(result.path).exists()


def test_own_answers_stand_in_the_place_of_the_rows(pool_rows, test_rows, tiny_bert, quick):
    replaced = load([{**row, "answer_from": "own"} for row in pool_rows[:40]])
    result = compare_grown(
        replaced, against=load(pool_rows[:40]), eval=test_rows, model=tiny_bert, settings=quick, seeds=2, base="none"
    )
    # the same rows on both sides: no difference
    assert result.verdicts[0].method == "own-answers"
    assert result.verdicts[0].effect.value == 0


def test_options_that_choose_rows_and_other_kinds_are_refused(pool, grown, test_rows):
    with pytest.raises(InputError, match="so budget must be left out"):
        compare_grown(grown, against=pool, eval=test_rows, budget=10)
    with pytest.raises(InputError, match="must hold rows of the grown ones' kind"):
        compare_grown(grown, against=[{"prompt": "a", "response": "b"}], eval=test_rows)
    with pytest.raises(InputError, match="no test row may be in the pool"):
        compare_grown(test_rows, against=pool, eval=test_rows)


def test_a_test_row_among_them_is_named_by_its_file(pool_rows, grown, tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in pool_rows[:20]))
    with pytest.raises(InputError, match=r"pool\.jsonl:7 is <list>:1"):
        compare_grown(grown, against=load(path), eval=load([pool_rows[6], pool_rows[30]]))


def test_the_command_compares_with_and_without(pool_rows, grown, tiny_bert, tmp_path, capsys):
    for name, rows in {"pool": pool_rows[:80], "test": pool_rows[80:], "grown": list(grown)}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "compare", str(tmp_path / "grown.jsonl"), "--against", str(tmp_path / "pool.jsonl"), "--base", "none",
        "--eval", str(tmp_path / "test.jsonl"), "--model", str(tiny_bert), "--seeds", "2", "--workers", "1",
        "--train", "epochs=1", "--train", "batch_size=8",
    ]  # fmt: skip
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "against without" in said
    assert "with-grown" in said


def test_the_weights_of_both_sides_are_learned_with(pool_rows, grown):
    ours, theirs = ([{**row, "w": w} for row in rows] for rows, w in ((pool_rows[:2], 1.0), (pool_rows[2:4], 0.5)))
    joined, _ = _join_rows(load(ours), load(theirs), "w")
    assert joined.column("w").to_list() == [1.0, 1.0, 0.5, 0.5]
    with pytest.raises(NotFoundError, match="'w' not found"):
        _join_rows(load(ours), grown, "w")
