"""An address that cannot be had is refused in one sentence, before anything is written."""

import pytest

import thresher as th
from thresher.artifacts.local_path import expand_path, refuse_address
from thresher.cli.addresses import resolve_addresses
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
        "select rows.jsonl --budget 1 --out abfs://bucket/out",
        "select rows.jsonl --budget 1 --out=ftp://bucket/out --dry-run",
        "select abfs://bucket/rows.jsonl --budget 1 --dry-run",
        "select rows.jsonl --budget 1 --method novelty --existing ssh://host/rows.jsonl --dry-run",
        "select rows.jsonl --budget 1 --method target-similarity --target abfs://user:hunter2@host/rows.jsonl",
        "select rows.jsonl --budget 1 --model hf://owner/name --dry-run",
        "select rows.jsonl --budget 1 --encoder s3://bucket/model --dry-run",
        "train rows.jsonl --eval abfs://bucket/rows.jsonl --out out",
        "train rows.jsonl --eval 20% --out abfs://bucket/out",
        "curve rows.jsonl --eval 20% --out abfs://bucket/out",
        "compare rows.jsonl --eval 20% --out abfs://bucket/out",
        "tune rows.jsonl --eval 20% --out abfs://bucket/out",
        "score rows.jsonl --features length --out abfs://bucket/out.parquet",
        "curate rows rows.jsonl --out abfs://bucket/out",
        "report abfs://bucket/out",
        "curate check abfs://bucket/job.toml",
    ],
)
def test_every_command_refuses_an_address(arguments, rows, tmp_path, capsys):
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a path" in line
    assert "hunter2" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("bad", ["files", "folder", "eval", "prometheus"])
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_job_file_with_an_address_is_refused_with_its_line(bad, verb, tmp_path, capsys):
    given = {"files": "rows.jsonl", "folder": "out", "more": ""}
    if bad in given:
        given[bad] = "abfs://bucket/here"
    else:
        given["more"] = '[notify]\nprometheus = "abfs://bucket/here.prom"' if bad == "prometheus" else ""
    text = JOB.format(**given)
    text = f'eval = ["abfs://bucket/here"]\n{text}' if bad == "eval" else text
    (tmp_path / "job.toml").write_text(text)
    assert main(["curate", verb, str(tmp_path / "job.toml")]) == 2
    errors = capsys.readouterr().err
    assert "a path" in errors
    assert f"line {text[: text.index('abfs:')].count(chr(10)) + 1}" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]


def test_the_functions_refuse_an_address_too(rows, tmp_path, monkeypatch):
    pool = th.load(rows)
    calls = [
        lambda: th.load("abfs://bucket/rows.jsonl"),
        lambda: th.load(["ftp://bucket/rows.jsonl"]),
        lambda: th.select(pool, "random", budget=1, out="abfs://bucket/out"),
        lambda: th.train(pool, eval=[{"text": "three", "label": "a"}], out="abfs://bucket/out"),
        lambda: th.report("abfs://bucket/out"),
    ]
    for call in calls:
        with pytest.raises(ThresherError, match="a path"):
            call()
    monkeypatch.setenv("THRESHER_CACHE", "s3://bucket/cache")
    with pytest.raises((InputError, SettingsError), match="a path"):
        th.select(pool, "k-center", budget=1, encoder="static")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_paths_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/b", "./s3:/a", "C:/rows.jsonl", "a:b", "owner/name", "x.jsonl", "", "/s3://a"):
        refuse_address(path)
    assert expand_path("~") != expand_path("./~")


@pytest.mark.parametrize("option", ["--model", "--annotator", "--teacher"])
def test_whoever_answers_may_be_a_server(option):
    words = ["label", "ask", "rows.jsonl", option, "http://localhost:8000/v1#m"]
    assert resolve_addresses(words) == words
    with pytest.raises(InputError, match="a path of this machine"):
        resolve_addresses([*words[:-1], "s3://bucket/model"])
