"""The examples for schedulers are taken by the tools they are for, where those are installed."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from thresher.jobs.job_file import read_job
from thresher.jobs.run_record import EXIT_CODES

EXAMPLES = Path(__file__).parents[2] / "examples" / "schedulers"


def test_the_job_that_all_examples_start_is_fine():
    job = read_job(EXAMPLES / "job.toml")
    assert [rule.name for rule in job.rules] == ["contamination", "length", "exact-duplicates", "near-duplicates"]


def test_the_table_of_exit_codes_is_that_of_the_program():
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)}
    assert codes == set(EXIT_CODES.values()) - {130}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units():
    units = [str(EXAMPLES / f"thresher-curate.{kind}") for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "thresher-curate" in line]
    assert (done.returncode, ours) == (0, [])
    calendar = re.search(r"^OnCalendar=(.+)$", (EXAMPLES / "thresher-curate.timer").read_text(), re.MULTILINE)[1]
    done = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_line_of_cron_has_five_fields_and_calls_3_and_75_no_failure(tmp_path):
    line = (EXAMPLES / "crontab").read_text().splitlines()[-1]
    fields, command = line.split(" ", 5)[:5], line.split(" ", 5)[5]
    assert all(re.fullmatch(r"\*|\d+", field) for field in fields)
    assert "%" not in command  # cron reads it as a line feed
    command = command.replace("/srv/pool", str(tmp_path))
    (tmp_path / "bin").mkdir()
    for code, expected in ((0, 0), (3, 0), (75, 0), (4, 1), (2, 1)):
        program = tmp_path / "bin" / "thresher"
        program.write_text(f"#!/bin/sh\necho said >&2\nexit {code}\n")
        program.chmod(0o755)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected
        assert (done.stdout == "") == (expected == 0)  # cron mails what is printed


@pytest.mark.skipif(importlib.util.find_spec("airflow") is None, reason="apache-airflow is not installed")
def test_airflow_takes_the_dag(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import airflow_dag
assert sorted(airflow_dag.dag.task_ids) == ["curate", "publish"]
assert airflow_dag.curate.skip_on_exit_code == [3]
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("prefect") is None, reason="prefect is not installed")
def test_prefect_runs_the_flow(kit, rows, tmp_path):
    kit.write()
    kit.add("a", rows(5, 1))
    environment = {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PATH": "/usr/bin:/bin",
        "THRESHER_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, EXAMPLES / "prefect_flow.py", kit.file],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(kit.table()) == 5


def test_the_other_examples_are_python():
    for path in EXAMPLES.glob("*.py"):
        compile(path.read_text(), str(path), "exec")
