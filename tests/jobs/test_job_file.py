"""Job files: every problem is reported at once, with its line and the nearest known key."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thresher.errors import SettingsError, ThresherError
from thresher.jobs.job_file import read_job

GOOD = '[[sources]]\nfiles = ["a.jsonl"]\n[output]\nfolder = "out"\n'


def problems(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_job(path)
    return str(caught.value)


def test_a_small_job_is_read_with_its_defaults(tmp_path):
    path = tmp_path / "nightly.toml"
    path.write_text(GOOD)
    job = read_job(path)
    assert (job.name, job.settings.output.keep, job.rules, job.budget) == ("nightly", 7, (), None)
    assert job.source_name(0) == "files-1"
    assert job.output_folder == tmp_path / "out"


def test_all_problems_are_reported_at_once_with_line_and_nearest_key(tmp_path):
    text = """sead = 3

[[sources]]
files = ["a.jsonl"]
[[sources]]
hub = "../../etc"
[select]
totl = 5
[output]
folder = "out"
keep = 0
"""
    message = problems(tmp_path, text)
    assert "4 problems" in message
    assert "line 1: unknown key 'sead' in the file; did you mean 'seed'?" in message
    assert "line 6: sources.2.hub: " in message
    assert "line 8: unknown key 'totl' in [select]; did you mean 'total'?" in message
    assert "line 11: output.keep: " in message
    assert "got 0" in message


def test_what_is_looked_up_is_reported_together_with_unknown_keys(tmp_path):
    text = """sead = 3
[[sources]]
name = "a"
files = ["a.jsonl"]
[[sources]]
name = "a"
file = ["b.jsonl"]
[rows]
columns = {promt = "q", response = "a"}
[[steps]]
rule = "near-duplicate"
[[steps]]
rule = 3
[select]
method = "k-centre"
[output]
folder = "out"
"""
    message = problems(tmp_path, text)
    assert "line 1: unknown key 'sead'" in message
    assert "line 7: unknown key 'file' in [sources.2]" in message
    assert "sources: each name must be used once, found 'a' twice" in message
    assert "unknown role 'promt'" in message
    assert "line 10: rule 'near-duplicate' not found" in message
    assert "line 13: steps.2.rule: " in message
    assert "selector 'k-centre' not found" in message


def test_a_model_in_a_folder_is_found_from_the_folder_of_the_job(tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "static").mkdir()
    (tmp_path / "job.toml").write_text(GOOD)
    job = read_job(tmp_path / "job.toml")
    monkeypatch.chdir("/")
    assert job.resolve_model("models/mine") == str(tmp_path / "models" / "mine")
    assert job.resolve_model("static") == "static"  # the embedded one
    assert (job.resolve_model("owner/name"), job.resolve_model(None)) == ("owner/name", None)


def test_rules_selector_and_budget_are_checked_together(tmp_path):
    text = (
        GOOD
        + '[[steps]]\nrule = "near-duplicate"\n[[steps]]\nrule = "length"\nmax_token = 3\n[select]\nbudget = "lots"\n'
    )
    message = problems(tmp_path, text)
    assert "3 problems" in message
    assert "did you mean 'near-duplicates'?" in message
    assert "line 7: length: unknown setting 'max_token'" in message
    assert "line 11: budget: must be" in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[sources]\n", "must be TOML"),
        ("", "2 problems"),
        (GOOD.replace('files = ["a.jsonl"]', 'files = ["a"]\nhub = "a/b"'), "exactly one of files, hub and sql"),
        (GOOD.replace('files = ["a.jsonl"]', 'sql = "select 1"'), "sql and url go together"),
        (GOOD.replace("a.jsonl", "a\\u0000b"), "sources.1.files.1"),
        (GOOD + "[gates]\nlengths = {warm = 0.1}\n", "did you mean 'warn'?"),
        (GOOD + "[notify]\nprometheus = 'x.txt'\n", "notify.prometheus"),
        (GOOD.replace('"out"', '"${HOME}/out"'), "output.folder: must be a path as it stands"),
        (GOOD.replace("a.jsonl", "${POOL}/*.jsonl"), "sources.1.files.1: must be a path as it stands"),
        (GOOD + "[notify]\nprometheus = '${HOME}/x.prom'\n", "notify.prometheus: must be a path as it stands"),
        (GOOD + "[gates]\nlengths = {warn = 0.3, fail = 0.1}\n", "gates.lengths: warn must be at most fail"),
        (GOOD + "[gates]\nlengths = {fail = 1.5}\n", "gates: lengths: a Jensen-Shannon divergence is at most 1"),
        (GOOD + "[gates]\ntopics = {fail = 0.5}\nn_topics = 0\n", "limits need topics, found n_topics = 0"),
        (GOOD + "[gates]\nmin_rows = 9\n[select]\ntotal = 5\n", "gates.min_rows must be at most select.total"),
        (GOOD + "[gates]\nlengths = 0.1\n", "must be a section or a table such as {warn = 0.1}, got 0.1"),
        (GOOD + "eval = 3\n", "unknown key 'eval' in [output]"),
    ],
)
def test_each_kind_of_problem_has_its_sentence(tmp_path, text, sentence):
    assert sentence in problems(tmp_path, text)


def test_a_key_cannot_forge_a_line_of_the_log(tmp_path):
    """Found by fuzzing."""
    message = problems(tmp_path, GOOD + '"\\nINFO: all is well\\u001b[2J" = 1\n[[steps]]\nrule = "length"\n"\\n" = 1\n')
    assert "unknown key '\\nINFO: all is well\\x1b[2J'" in message
    lines = message.split("\n")
    assert len(lines) == 3  # the head and two problems
    assert all(line.isprintable() for line in lines)


def test_a_line_of_spaces_costs_no_time(tmp_path):
    """The search for keys and their lines was cubic in the length of a line."""
    began = time.monotonic()
    assert "unknown key 'odd'" in problems(tmp_path, " " * 50_000 + f"\nodd = 1\nname{' ' * 50_000}= 'a'\n{GOOD}")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("hub", ["../x", "a/../b", "/etc/passwd", "a/b/c", "a", "a/.git", "a/b\n"])
def test_a_hub_id_cannot_be_a_path(tmp_path, hub):
    path = tmp_path / "job.toml"
    path.write_text(GOOD.replace('files = ["a.jsonl"]', f"hub = {hub!r}".replace("'", '"')))
    with pytest.raises(SettingsError, match="hub"):
        read_job(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (GOOD + text).encode(errors="replace")))
def test_any_bytes_are_a_job_or_one_error_of_ours(tmp_path, content):
    path = tmp_path / "job.toml"
    path.write_bytes(content)
    message = str(path)
    try:
        read_job(path)
    except ThresherError as error:
        message = str(error)
    assert str(path) in message
