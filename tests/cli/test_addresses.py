"""An address is no folder: refused in one sentence, before anything is read or written."""

import pytest

import thresher as th
from thresher.artifacts.local_path import expand_path, refuse_address
from thresher.cli.main import main
from thresher.errors import InputError, SettingsError, ThresherError

JOB = '[[sources]]\nfiles = ["{files}"]\n[select]\ntotal = 5\n[output]\nfolder = "{folder}"\n{more}\n'


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n')
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        "select rows.jsonl --budget 1 --out s3://bucket/out",
        "select rows.jsonl --budget 1 --out=gs://bucket/out --dry-run",
        "select s3://bucket/rows.jsonl --budget 1 --dry-run",
        "select rows.jsonl --budget 1 --method novelty --existing https://host/rows.jsonl --dry-run",
        "select rows.jsonl --budget 1 --method target-similarity --target abfs://user:hunter2@host/rows.jsonl",
        "select rows.jsonl --budget 1 --model hf://owner/name --dry-run",
        "train rows.jsonl --eval s3://bucket/rows.jsonl --out out",
        "train rows.jsonl --eval 20% --out s3://bucket/out",
        "curve rows.jsonl --eval 20% --out s3://bucket/out",
        "compare rows.jsonl --eval 20% --out s3://bucket/out",
        "tune rows.jsonl --eval 20% --out s3://bucket/out",
        "score rows.jsonl --features length --out s3://bucket/out.parquet",
        "curate rows rows.jsonl --out s3://bucket/out",
        "report s3://bucket/out",
        "curate check s3://bucket/job.toml",
    ],
)
def test_every_command_refuses_an_address(arguments, rows, tmp_path, capsys):
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "got an address" in line
    assert "hunter2" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("bad", ["files", "folder", "eval", "prometheus"])
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_job_file_with_an_address_is_refused_with_its_line(bad, verb, tmp_path, capsys):
    given = {"files": "rows.jsonl", "folder": "out", "more": ""}
    if bad in given:
        given[bad] = "s3://bucket/here"
    else:
        given["more"] = '[notify]\nprometheus = "s3://bucket/here.prom"' if bad == "prometheus" else ""
    text = JOB.format(**given)
    text = f'eval = ["s3://bucket/here"]\n{text}' if bad == "eval" else text
    (tmp_path / "job.toml").write_text(text)
    assert main(["curate", verb, str(tmp_path / "job.toml")]) == 2
    errors = capsys.readouterr().err
    assert "got an address" in errors
    assert f"line {text[: text.index('s3:')].count(chr(10)) + 1}" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]


def test_the_functions_refuse_an_address_too(rows, tmp_path, monkeypatch):
    pool = th.load(rows)
    calls = [
        lambda: th.load("s3://bucket/rows.jsonl"),
        lambda: th.load(["gs://bucket/rows.jsonl"]),
        lambda: th.select(pool, "random", budget=1, out="s3://bucket/out"),
        lambda: th.train(pool, eval=[{"text": "three", "label": "a"}], out="s3://bucket/out"),
        lambda: th.report("s3://bucket/out"),
    ]
    for call in calls:
        with pytest.raises(ThresherError, match="got an address"):
            call()
    monkeypatch.setenv("THRESHER_CACHE", "s3://bucket/cache")
    with pytest.raises((InputError, SettingsError), match="got an address"):
        th.select(pool, "k-center", budget=1, encoder="static")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_paths_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/b", "./s3:/a", "C:/rows.jsonl", "a:b", "owner/name", "x.jsonl", "", "/s3://a"):
        refuse_address(path)
    assert expand_path("~") != expand_path("./~")
