import inspect
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from thresher.artifacts.manifest import Manifest
from thresher.cli.main import main


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.jsonl"
    rows = [
        {"text": f"row number {number} about topic {number % 7}", "label": f"class {number % 3}"}
        for number in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


def refused(capsys, *arguments):
    """Run a command that must be refused and return its one sentence."""
    assert main([str(argument) for argument in arguments]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("thresher: ")
    assert len(streams.err.splitlines()) == 1
    assert "Traceback" not in streams.err
    return streams.err


def test_importing_thresher_loads_no_heavy_package():
    heavy = ("torch", "polars", "pyarrow", "faiss", "numba", "typer")
    code = f"import sys, thresher; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_no_torch_and_lists_every_verb():
    code = (
        "import sys\nfrom thresher.cli.main import main\nmain(['--help'])\n"
        "print('loaded', [m for m in ('torch', 'polars', 'faiss', 'numba', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded []" in done.stdout
    for verb in ("select", "train", "try", "curate"):
        assert verb in done.stdout


def test_random_selection_loads_nothing_slow(pool, tmp_path):
    code = (
        "import sys\nfrom thresher.cli.main import main\n"
        f"main(['select', {str(pool)!r}, '--method', 'random', '--budget', '10', '--out', {str(tmp_path / 'out')!r}])\n"
        "print([m for m in ('torch', 'numba', 'scipy', 'faiss', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_select_command_has_the_names_and_defaults_of_the_function():
    from thresher.cli.select import select as command
    from thresher.dataset import load
    from thresher.selection.run import select as function

    told = {**inspect.signature(load).parameters, **inspect.signature(function).parameters}
    only_here = {"as_json", "quiet", "dry_run", "sources", "push_to_hub"}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in only_here:
            assert name in told, name
            is_optional = name == "pool"  # --source may stand for it
            assert is_optional or parameter.default == told[name].default, name


def test_kept_rows_go_to_stdout_as_the_user_wrote_them(pool, capfdbinary):
    assert main(["select", str(pool), "--method", "random", "--budget", "5"]) == 0
    streams = capfdbinary.readouterr()
    kept = streams.out.splitlines()
    assert len(kept) == 5
    assert set(kept) <= set(pool.read_bytes().splitlines())
    assert b"5 of 60 rows kept" in streams.err


def test_rows_that_are_no_text_are_not_written_to_a_terminal(tmp_path, monkeypatch, capsys):
    import polars as pl

    path = tmp_path / "pool.parquet"
    pl.DataFrame({"text": ["a", "b"], "label": ["c", "d"]}).write_parquet(path)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    arguments = ("select", path, "--method", "random", "--budget", "1")
    assert "the kept rows are .parquet, which a terminal cannot show; give --out DIR" in refused(capsys, *arguments)
    assert main([*map(str, arguments), "--out", str(tmp_path / "out")]) == 0


def test_json_summary_goes_to_stdout_and_is_the_manifest(pool, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["select", str(pool), "--method", "random", "--budget", "50%", "--out", str(out), "--json", "--quiet"])
        == 0
    )
    streams = capsys.readouterr()
    assert json.loads(streams.out) == Manifest.read(out).content
    assert streams.err == ""


def test_the_same_command_again_changes_nothing(pool, tmp_path):
    command = ["select", str(pool), "--method", "random", "--budget", "10", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_an_unknown_method_names_those_there_are(pool, capsys):
    sentence = refused(capsys, "select", pool, "--method", "k-centre", "--budget", "5")
    assert "did you mean 'k-center'?" in sentence
    assert "facility-location" in sentence


@pytest.mark.parametrize("budget", ["61", "0", "0%", "-5", "lots", "150%", "1e9tok"])
def test_a_budget_that_does_not_fit_is_refused(pool, capsys, budget):
    assert "budget: " in refused(capsys, "select", pool, "--method", "random", f"--budget={budget}")


def test_without_a_method_rows_like_the_target_are_chosen(pool, tmp_path, capsys):
    target = tmp_path / "target.jsonl"
    target.write_text("".join(line + "\n" for line in pool.read_text().splitlines()[:5]))
    command = ["select", str(pool), "--budget", "5", "--encoder", "static", "--target", str(target)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert Manifest.read(tmp_path / "out").content["pilot"]["chosen"] == "target-similarity"
    assert "the rows most similar to the target" in capsys.readouterr().err
    target.write_text("")
    assert "rows are required, found none; the file is empty" in refused(capsys, *command[:-1], target)
    arguments = ("select", pool, "--budget", "5", "--existing", target)
    assert "existing: auto does not use rows you already have" in refused(capsys, *arguments)


def test_a_threshold_on_a_method_that_only_ranks_is_refused(pool, capsys):
    sentence = refused(
        capsys, "select", pool, "--method", "k-center", "--encoder", "static", "--budget", "score>0.5", "--quiet"
    )
    assert "ranks rows and has no score" in sentence


def test_a_column_that_is_not_there_is_refused_with_the_nearest(pool, capsys):
    sentence = refused(capsys, "select", pool, "--method", "stratified", "--set", "by=labl", "--budget", "5", "--quiet")
    assert "labl" in sentence
    assert "label" in sentence.replace("labl'", "")
    assert "quota" not in refused(
        capsys, "select", pool, "--method", "random", "--quota", "kind", "--budget", "5", "--quiet"
    )


@pytest.mark.parametrize(("method", "setting"), [("stratified", "by"), ("quality-diversity", "quality")])
def test_a_column_that_the_method_needs_says_how_to_name_another(tmp_path, capsys, method, setting):
    path = tmp_path / "pool.jsonl"
    path.write_text('{"prompt": "p", "completion": "c"}\n')
    told = refused(capsys, "select", path, "--method", method, "--budget", "1")
    assert told.startswith(f"thresher: {method}: column '")
    assert f"there are: prompt, completion; name one with --set {setting}=COLUMN" in told


def test_an_unknown_setting_names_those_there_are(pool, capsys):
    sentence = refused(capsys, "select", pool, "--method", "deft-ucs", "--set", "easy_shar=0.3", "--budget", "5")
    assert "did you mean 'easy_share'?" in sentence


def test_an_encoder_that_cannot_be_reached_says_what_to_do(pool, capsys):
    sentence = refused(capsys, "select", pool, "--encoder", "no/such-encoder", "--budget", "5", "--quiet")
    assert "no/such-encoder" in sentence


def test_a_file_that_is_not_there_is_refused(tmp_path, capsys):
    assert "pol.jsonl" in refused(capsys, "select", tmp_path / "pol.jsonl", "--budget", "5")


def test_existing_rows_with_a_method_that_ignores_them_are_refused(pool, capsys):
    sentence = refused(capsys, "select", pool, "--method", "random", "--existing", pool, "--budget", "5")
    assert sentence.startswith("thresher: existing: random does not use rows you already have")


def test_a_folder_with_something_else_is_refused_and_kept(pool, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in refused(
        capsys, "select", pool, "--method", "random", "--budget", "5", "--out", tmp_path / "out"
    )
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_an_unknown_option_is_one_sentence(pool, capsys):
    assert "--bugdet" in refused(capsys, "select", pool, "--bugdet", "5")


def test_a_missing_option_is_one_sentence(pool, capsys):
    told = refused(capsys, "select", pool)
    assert told == (
        "thresher: missing option '--budget'; for example: thresher select train.jsonl --budget 10% --out chosen; "
        "see 'thresher select --help'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--metod", "random"], "no such option: --metod; did you mean --method?; see 'thresher select --help'"),
        (["--seed", "x", "--budget", "5"], "'--seed': must be a whole number"),
        (["--max-row-bytes", "0", "--budget", "5"], "'--max-row-bytes': must be at least 1"),
        (["--order", "x", "--budget", "5"], "'--order': 'x' is not one of 'file', 'rank'"),
        (["other.jsonl", "--budget", "5"], "give several files as a quoted glob ('data/*.jsonl')"),
    ],
)
def test_what_cannot_be_parsed_is_told_in_our_own_words(pool, capsys, arguments, told):
    assert told in refused(capsys, "select", pool, *arguments)


def test_a_file_in_the_place_of_a_command_is_told_apart_from_a_misspelled_one(capsys):
    told = refused(capsys, "curate", "pool.jsonl")
    assert "no such command 'pool.jsonl'; a command comes before the file: " in told
    assert "clean" in told
    assert refused(capsys, "version") == "thresher: no such command 'version'; did you mean 'thresher --version'?\n"


def test_an_option_that_only_its_dashes_make_similar_is_not_suggested(capsys):
    told = refused(capsys, "label", "budget", "--budget", "3")
    assert told == "thresher: no such option: --budget; see 'thresher label budget --help'\n"


def test_a_group_of_commands_alone_shows_its_help_and_nothing_else(capsys):
    assert main(["curate"]) == 2
    streams = capsys.readouterr()
    assert "thresher curate [OPTIONS] COMMAND" in streams.out
    assert streams.err == ""


def test_a_tilde_that_the_shell_leaves_is_the_home_folder(pool, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["select", "~/pool.jsonl", "--method", "random", "--budget", "5", "--out=~/chosen"]) == 0
    assert (tmp_path / "chosen" / "manifest.json").is_file()
    assert f"{tmp_path}/chosen: dropped.parquet" in capsys.readouterr().err


def test_json_without_a_folder_is_refused(pool, capsys):
    assert "--out" in refused(capsys, "select", pool, "--budget", "5", "--json")


def test_ctrl_c_exits_130_and_says_how_to_go_on(forks, tmp_path):
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"text": f"row {i} " * 10, "label": str(i % 3)}) + "\n" for i in range(3000)))
    given = ["--encoder", "minilm", "--budget", "5", "--out", tmp_path / "out"]
    process = forks.start(["select", pool, *given])
    cache = tmp_path / "cache"
    deadline = time.monotonic() + 60
    while not (cache.exists() and any(cache.rglob("*.safetensors"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence_and_leaves_no_output(pool, tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("making a small disk needs the right to mount one")
    try:
        sentence = refused(
            capsys, "select", pool, "--method", "random", "--budget", "50", "--out", disk / "out", "--quiet"
        )
        assert "no space left" in sentence
        assert not (disk / "out").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_methods_lists_every_selector_with_a_line(capsys):
    assert main(["methods"]) == 0
    text = capsys.readouterr().out
    for name in ("random", "stratified", "length", "k-center", "deft-ucs", "facility-location", "herding"):
        assert f"\n{name} " in f"\n{text}"


def test_methods_tells_about_one(capsys):
    assert main(["methods", "facility-location"]) == 0
    text = capsys.readouterr().out
    assert "arg" in text or "max" in text
    assert "--set n_neighbors=" in text
    assert main(["methods", "stratified"]) == 0
    assert "--set n_clusters=VALUE (not set)" in capsys.readouterr().out
    assert "did you mean" in refused(capsys, "methods", "facility-locatio")


def test_cache_shows_what_it_holds_and_forgets_it(pool, tmp_path, capsys):
    assert (
        main(["select", str(pool), "--encoder", "static", "--budget", "5", "--out", str(tmp_path / "out"), "--quiet"])
        == 0
    )
    assert main(["cache"]) == 0
    assert "60 rows" in capsys.readouterr().out
    assert "exactly one of" in refused(capsys, "cache", "prune")
    assert "'--max-gb': must be at least 0" in refused(capsys, "cache", "prune", "--max-gb", "-1")
    assert main(["cache", "prune", "--all"]) == 0
    capsys.readouterr()
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == []


def test_existing_rows_are_read_as_the_pool_is(tmp_path, capsys):
    for name, numbers in (("pool", range(30)), ("have", range(5))):
        rows = [{"q": f"question {i}", "a": f"answer {i}"} for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"q": "?"}]))
    options = ["--map", "prompt=q,response=a", "--method", "k-center", "--encoder", "static", "--budget", "3"]
    assert main(["select", str(tmp_path / "pool.jsonl"), "--existing", str(tmp_path / "have.jsonl"), *options]) == 0
    streams = capsys.readouterr()
    assert len(streams.out.splitlines()) == 3
    assert "have.jsonl: 1 of 6 rows cannot be used and are rejected: 1 x field 'a' is missing\n" in streams.err


def test_target_rows_are_read_as_the_pool_is(tmp_path, capsys):
    for name, numbers in (("pool", range(30)), ("aim", (7, 19))):
        rows = [{"q": f"question {i}", "a": f"answer {i}"} for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--map", "prompt=q,response=a", "--method", "target-similarity", "--set", "kernel=embedding"]
    command = ["select", str(tmp_path / "pool.jsonl"), "--encoder", "static", "--budget", "2", *options]
    assert main([*command, "--target", str(tmp_path / "aim.jsonl")]) == 0
    assert [json.loads(line)["a"] for line in capsys.readouterr().out.splitlines()] == ["answer 7", "answer 19"]
    assert "give --target FILE" in refused(capsys, *command)


def test_a_reader_that_leaves_early_is_no_error(pool):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "thresher", "select", str(pool), "--method", "random", "--budget", "5", "--quiet"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminated_run_leaves_no_temporary_files(tmp_path):
    command = [sys.executable, "-m", "thresher", "select", "-", "--method", "random", "--budget", "5"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("plain")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    process.stdin.close()
    assert list(tmp_path.iterdir()) == []


def test_reasons_beyond_the_first_five_are_counted_together(tmp_path, capsys):
    bad = ["{", '{"text": 1, "label": "a"}', '{"text": "", "label": "a"}', '{"text": null, "label": "a"}', "[]"]
    bad += ['{"text": "a"}', '{"text": "a", "label": [1]}']
    good = [json.dumps({"text": f"row {i}", "label": "a"}) for i in range(20)]
    (tmp_path / "pool.jsonl").write_text("\n".join([*good, *bad]) + "\n")
    clean = ["curate", "clean", "--out", str(tmp_path / "out")]
    for command in (["select", "--method", "random", "--budget", "5"], clean):
        assert main([*command, str(tmp_path / "pool.jsonl")]) == 0
        told = capsys.readouterr().err
        assert "27 rows read (text-label: text=text, label=label), 7 rejected" in told
        assert "  2 for 2 more reasons\n" in told


def test_a_summary_tells_which_columns_were_read_and_which_were_not(tmp_path, capsys):
    rows = [{"title": f"q{i}", "sentence": f"s{i}", "label": i % 2, "idx": i} for i in range(4)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = "text-label: text=sentence, label=label; other columns: title, idx"
    for command in (["select", "--method", "random", "--budget", "2"], ["curate", "clean"]):
        assert main([*command, str(tmp_path / "pool.jsonl"), "--out", str(tmp_path / command[0])]) == 0
        assert f"4 rows read ({read})" in capsys.readouterr().err
