"""Names and texts that hold control characters: none of them reaches a terminal or a log raw."""

import ast
import json
import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.models.generation.test_hostile_servers import HostileServer, frame, send, serve  # noqa: F401 - a fixture
from thresher.cli.main import main
from thresher.printable import _CleanRecord, _show_warning, escape_controls, escape_json, escape_line, join_lines

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
EVIL = "\x1b[31mred\x1b]0;owned\x07 \r\u202eback\u2066 \x9b2J \x7f"
FORGED = "\nINFO: all is well"
CLI = Path(__file__).parents[2] / "thresher" / "cli"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder of rows whose file, columns, labels and texts are hostile."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"text": f"{EVIL} text {i} {FORGED}", "label": f"{EVIL}{FORGED}{i % 2}", f"col{EVIL}{FORGED}": f"{EVIL}{i % 3}"}
        for i in range(24)
    ]
    rows += [{"text": None, "label": "a"}, {"text": f"{EVIL}", "label": None}]
    name = f"pool{EVIL}{FORGED}.jsonl".replace("/", "")
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / name


def run(arguments, capfd, *, code=None):
    """Run a command in this process, and return what it printed, which must hold nothing raw."""
    returned = main([str(argument) for argument in arguments])
    printed = capfd.readouterr()
    for text in printed:
        assert not RAW.search(text), RAW.search(text)
        assert not any(line.startswith("INFO: all is well") for line in text.splitlines()), text
    assert code is None or returned == code, printed.err
    return printed


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["select", "POOL", "--budget", "5", "--method", "random", "--out", "OUT"], 0),
        (["select", "POOL", "--budget", "5", "--method", "random", "--out", "OUT", "--json"], 0),
        (["select", "POOL", "--budget", "5", "--method", "length", "--dry-run"], 0),
        (["select", "POOL", "--budget", "5", "--method", "random", "--quota", f"col{EVIL}{FORGED}=equal"], None),
        (["select", "POOL", "--budget", "5", "--method", f"random{EVIL}{FORGED}"], 2),
        (["select", "POOL", "--budget", f"{EVIL}{FORGED}"], 2),
        (["select", "POOL", "--schema", f"{EVIL}{FORGED}", "--budget", "5"], 2),
        (["select", f"gone{EVIL}{FORGED}.jsonl", "--budget", "5"], 2),
        (["select", "POOL", "--budget", "5", f"--no-such{EVIL}"], 2),
        (["select", "POOL", "--budget", "5", "--set", f"a{EVIL}{FORGED}=1"], 2),
        (["score", "POOL", "--features", f"number:{EVIL}{FORGED}"], 2),
        (["score", "POOL", "--features", "length"], 0),
        (["score", "POOL", "--features", "length", "--json", "--out", "OUT.parquet"], 0),
        (["curate", "clean", "POOL", "--rules", "exact-duplicates", "--out", "OUT"], 0),
        (["curate", "clean", "POOL", "--rules", f"x{EVIL}{FORGED}", "--out", "OUT"], 2),
        (["report", f"gone{EVIL}{FORGED}"], 2),
        (["methods", f"x{EVIL}{FORGED}"], 2),
        (["train", "POOL", "--eval", f"{EVIL}{FORGED}"], 2),
        (["curate", "run", f"gone{EVIL}{FORGED}.toml"], 2),
        (["curate", "run", f"gone{EVIL}{FORGED}.toml", "--log-json"], 2),
        (["cache"], 0),
    ],
)
def test_nothing_raw_is_printed(arguments, code, folder, capfd):
    out = folder.parent / f"out{EVIL}{FORGED}".replace("/", "")
    words = {"POOL": str(folder), "OUT": str(out), "OUT.parquet": f"{out}.parquet"}
    run([words.get(word, word) for word in arguments], capfd, code=code)


def test_a_job_with_hostile_names_prints_and_logs_nothing_raw(folder, capfd):
    source = folder.with_name(f"source{EVIL}")
    source.mkdir()
    folder.rename(source / folder.name)
    (source / f"broken{EVIL}{FORGED}.jsonl").write_text("{")
    job = folder.with_name("job.toml")
    text = json.dumps(f"{source}/*.jsonl")
    job.write_text(
        f'[[sources]]\nname = "s{EVIL}"\nfiles = [{text}]\n[rows]\nunreadable = "skip"\n'.replace(EVIL, "\\u001b[31m")
        + '[select]\n[features]\nencoder = "static"\n[output]\nfolder = "out"\n'
    )
    assert run(["curate", "run", job], capfd).err
    (source / "more.jsonl").write_text(json.dumps({"text": f"new {EVIL}", "label": EVIL}) + "\n")
    for line in run(["curate", "run", job, "--log-json"], capfd).err.splitlines():
        assert json.loads(line)["message"]
    for verb in (["history"], ["show", "1"], ["history", "--json"], ["show", "1", "--json"], ["check"]):
        run(["curate", *verb, "--job", job] if verb[0] != "check" else ["curate", "check", job], capfd)


def test_each_problem_of_a_job_file_is_a_line(tmp_path, capfd):
    job = tmp_path / f"job{EVIL}{FORGED}.toml".replace("/", "")
    job.write_text(f'[select]\n"{FORGED.strip()}\\n\\u001b" = 1\nx = 1\n[output]\nfolder = "out"\n')
    lines = run(["curate", "check", job], capfd, code=2).err.splitlines()
    assert re.search(r"job.*: \d problems:$", lines[0])
    assert all(re.match(r"  (line \d+: )?\w+", line) for line in lines[1:])
    assert len(lines) == 1 + int(lines[0].split()[-2])


def test_words_of_a_server_are_printed_without_their_controls(serve, folder, capfd):  # noqa: F811
    refusal = frame(json.dumps({"error": {"message": f"{EVIL}{FORGED}"}}).encode(), "400 Bad")
    server, address = serve(send(refusal))
    server.rows = type("", (), {"append": lambda *_: None})()
    run(["score", folder, "--features", "confidence", "--model", address, "--set", "samples=2"], capfd)
    run(["select", folder, "--budget", "5", "--method", "confidence", "--model", address], capfd)


def test_a_bar_at_a_terminal_shows_names_without_their_controls(folder, tmp_path):
    """Rich moves the cursor itself: what must not come through is what the names hold."""
    code = (
        "from thresher.cli.progress import progress_display; from thresher.progress import Progress\n"
        f"evil = {(EVIL + FORGED)!r}\n"
        "with progress_display(quiet=False) as show:\n"
        "    show(Progress(stage=evil, done=1, total=2, note='[bold]note[/bold] :smile:' + evil))\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, cwd=tmp_path)
    assert process.wait(timeout=60) == 0
    os.close(theirs)
    shown = os.read(ours, 1 << 20).decode()
    os.close(ours)
    assert "\\x1b[31mred" in shown
    assert "[bold]note[/bold] :smile:" in re.sub("\x1b\\[[0-9;]*m", "", shown)
    for raw in ("\x1b[31m", "\x1b]0;", "\u202e", "\x07", "\nINFO"):
        assert raw not in shown


def test_warnings_and_log_records_of_libraries_are_clean(capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(f"careful {EVIL}{FORGED}", stacklevel=1)
    _show_warning(caught[0].message, UserWarning, f"file{EVIL}.py", 3)
    record = _CleanRecord("name", 30, "path", 1, "got %s", (EVIL + FORGED,), None)
    printed = capfd.readouterr().err + record.getMessage()
    assert "careful" in printed
    assert not RAW.search(printed)
    assert "\nINFO" not in printed


def test_a_traceback_is_clean(tmp_path):
    code = (
        f"from thresher.printable import clean_foreign_messages; clean_foreign_messages()\nraise ValueError({EVIL!r})"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=tmp_path)
    assert process.returncode == 1
    assert b"ValueError" in process.stderr
    assert not RAW.search(process.stderr.decode())


def test_escaping_keeps_what_people_write():
    assert escape_controls("Zoë, 東京, नमस्ते, 👩‍👩‍👧, a\tb\nc") == "Zoë, 東京, नमस्ते, 👩‍👩‍👧, a\tb\nc"
    assert escape_line("a\nb\x1b") == "a\\nb\\x1b"
    assert join_lines(["a\nb", "c"]) == "a\\nb\nc"
    value = {"a": "\x7f\x9b\u202e\U000e0041"}
    text = escape_json(json.dumps(value, ensure_ascii=False))
    assert text.isascii()
    assert json.loads(text) == value


def test_only_one_module_of_the_command_line_prints():
    for path in sorted(CLI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            is_writing = name.endswith(("stdout.write", "stderr.write"))
            is_printing = is_writing or name in ("print", "typer.echo", "typer.secho")
            assert not is_printing or path.name in ("output.py", "progress.py", "curate_job.py"), f"{path}: {name}"
