"""`label budget`: from tables of runs and prices to an answer, by command and in Python."""

import json
import re

import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError, SettingsError


def make_rows(floor, height):
    return [
        {"rows": n, "value": 1 - floor - height * n**-0.5 + 0.002 * seed, "seed": seed}
        for n in (50, 100, 200, 400)
        for seed in range(2)
    ]


def write_table(path, rows):
    lines = ["rows,value,seed", *(f"{row['rows']},{row['value']},{row['seed']}" for row in rows)]
    path.write_text("\n".join(lines))
    return path


CURVES = {"label": make_rows(0.05, 2.0), "teacher": make_rows(0.15, 1.6)}


def test_the_command_answers_and_reads_its_folder_back(tmp_path, capsys):
    paths = {name: write_table(tmp_path / f"{name}.csv", rows) for name, rows in CURVES.items()}
    command = ["label", "budget", "--price", "label=1,teacher=0.1", "--fixed", "teacher=20", "--money", "30,600"]
    command += [word for name, path in paths.items() for word in ("--curve", f"{name}={path}")]
    assert main([*command, "--out", str(tmp_path / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    content = json.loads(shown.out)
    assert content["answer"] in shown.err
    assert [offer["best"] for offer in content["offers"]] == ["teacher", "label"]
    assert re.search(
        r"; above about [\d.]+ \[[\d.]+, [\d.]+\] \(80 % interval\), label beats teacher", content["answer"]
    )
    assert th.open(tmp_path / "out").content == content
    assert main([*command, "--out", str(tmp_path / "out"), "-q"]) == 0  # read back


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"price": {"label": 1}}, "a price per row is required, found none of teacher"),
        ({"price": {"label": 1, "teacher": 0}}, "price of 'teacher' must be a number above 0, got 0"),
        (
            {"price": {"label": 1, "teacher": 1, "techer": 2}},
            "price of 'techer': no such curve.*did you mean 'teacher'",
        ),
        ({"fixed": {"label": -1}}, "fixed of 'label' must be a number above 0"),
        ({"money": []}, "amounts of money above 0 are required, got none"),
        ({"curves": {}}, "at least one curve is required"),
    ],
)
def test_illegal_prices_are_refused(change, problem):
    call = {"curves": CURVES, "price": {"label": 1, "teacher": 0.1}, "money": [100.0], **change}
    with pytest.raises(SettingsError, match=problem):
        th.label_budget(call.pop("curves"), **call)


@pytest.mark.parametrize(
    ("curve", "problem"),
    [
        ([{"n": 1}], "needs the columns rows and value, found n"),
        (make_rows(0.1, 1)[:4], "at least 3"),
        ("/nothing/here", "must be a folder or a table, found nothing"),
    ],
)
def test_a_curve_that_is_none_is_refused(curve, problem):
    with pytest.raises(InputError, match=problem):
        th.label_budget({"label": curve}, price={"label": 1}, money=[10])


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), 0.0, -1.0])
def test_amounts_that_are_no_money_are_refused(amount):
    with pytest.raises(SettingsError, match="amounts of money above 0 are required"):
        th.label_budget(CURVES, price={"label": 1, "teacher": 1}, money=[5.0, amount])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be CSV or JSON lines with rows and value"),
        ("rows,value\n50,x\n100,0.5\n", "a share from 0 to 1 in 'value', found 'x' in 1 of 2 lines"),
        ("rows,value\n50,61.5\n100,70\n", "a share from 0 to 1 in 'value', found 61.5 in 2 of 2 lines"),
        ("rows,value\n0,0.5\n100,0.6\n", "a number above 0 in 'rows', found 0 in 1 of 2 lines"),
    ],
)
def test_tables_that_are_no_curve_are_refused(tmp_path, text, problem):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=problem):
        th.label_budget({"label": tmp_path / "a.csv"}, price={"label": 1}, money=[5.0])


def test_a_price_that_is_given_twice_is_refused(tmp_path, capsys):
    path = write_table(tmp_path / "a.csv", CURVES["label"])
    assert main(["label", "budget", "--curve", f"a={path}", "--price", "a=1,a=2", "--money", "5"]) == 2
    assert "found a name twice in 'a=1,a=2'" in capsys.readouterr().err
