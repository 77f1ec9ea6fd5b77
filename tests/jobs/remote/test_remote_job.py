"""A job from S3 to S3, by a server on this machine, and kills at random moments."""

import json
import signal
import time
from importlib.util import find_spec

import numpy as np
import pytest

from tests.local_s3 import BUCKET, describe_environment, open_client, read_objects, run_s3_server, serve_status
from thresher.cli.main import main

# the server of moto is part of it, and imports flask
is_missing = any(find_spec(name) is None for name in ("s3fs", "moto", "flask", "flask_cors"))
pytestmark = pytest.mark.skipif(is_missing, reason="s3fs or the server of moto is not installed")

WORDS = ["red", "blue", "small", "large", "shirt", "phone", "case", "lamp", "oak", "steel", "cotton", "running", "toy"]
JOB = """
seed = 3
eval = ["s3://bucket/test/rows.jsonl"]
[[sources]]
files = ["s3://bucket/in/{source}/*.jsonl"]
[[steps]]
rule = "length"
max_characters = 90
[select]
method = "random"
budget = 100
[gates]
n_topics = 0
[output]
folder = "s3://bucket/{output}"
shard_rows = 40
"""


@pytest.fixture(scope="module")
def server():
    with run_s3_server() as environment:
        client = open_client(environment)
        put(client, "test/rows.jsonl", make_rows(9, 20))
        put(client, "in/first/a.jsonl", make_rows(1, 150))
        put(client, "in/both/a.jsonl", make_rows(1, 150))
        put(client, "in/both/b.jsonl", make_rows(2, 150))
        yield environment


def put(client, key, content):
    client.put_object(Bucket=BUCKET, Key=key, Body=content)


def make_rows(seed, n_rows):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 12)) + f" {seed} {number}" for number in range(n_rows)]
    rows = [{"text": text, "label": str(rng.integers(3))} for text in texts]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def own_storage(server, monkeypatch, tmp_path):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in {**server, "THRESHER_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    yield open_client(server)
    s3fs.S3FileSystem.clear_instance_cache()


def write_job(tmp_path, source, output):
    path = tmp_path / f"{output}-{source}.toml"
    path.write_text('name = "nightly"\n' + JOB.format(source=source, output=output))
    return path


@pytest.fixture
def start(forks, server):
    """Start a job with a cache of its own."""

    def start_job(job, cache):
        given = {**server, "THRESHER_CACHE": str(cache)}
        return forks.start(["curate", "run", job, "--quiet"], environment=given)

    return start_job


def finish(process, expected=(0,)):
    _, errors = process.communicate()
    assert process.returncode in expected, errors
    return process.returncode


def read_snapshot(client, output, version):
    """Return the bytes of a snapshot, without what differs between two runs of the same work."""
    content = read_objects(client, f"{output}/snapshots/{version}/")
    manifest = json.loads(content.pop("manifest.json"))
    del manifest["run"]
    return {**content, "manifest.json": json.dumps(manifest)}


def check_visible(client, output, expected):
    """What `latest` leads to, if anything, is a whole snapshot."""
    latest = read_objects(client, f"{output}/latest").get("")
    if latest is not None:
        version = latest.decode().removeprefix("snapshots/")
        assert read_snapshot(client, output, version) == expected[version]


def test_a_job_runs_from_s3_to_s3_and_its_snapshots_are_read(own_storage, tmp_path, capsys):
    first, both = (write_job(tmp_path, source, "pool") for source in ("first", "both"))
    assert main(["curate", "run", str(first)]) == 0
    assert main(["curate", "run", str(first)]) == 3
    assert main(["curate", "run", str(both), "--dry-run"]) == 0
    assert main(["curate", "run", str(both)]) == 0
    for job in (str(both), "s3://bucket/pool"):
        assert main(["curate", "history", "--job", job]) == 0
        assert main(["curate", "diff", "v1", "v2", "--job", job]) == 0
    shown = capsys.readouterr()
    assert "100 added, 0 removed" in shown.out
    assert str(tmp_path / "cache") not in shown.out + shown.err
    files = read_objects(own_storage, "pool/")
    assert files["latest"] == b"snapshots/v000002"
    assert str(tmp_path / "cache").encode() not in files["snapshots/v000002/manifest.json"]
    assert b"s3://bucket/in/both/b.jsonl" in files["snapshots/v000002/sources.json"]
    chosen = [
        "select",
        "s3://bucket/pool/latest",
        "--method",
        "random",
        "--budget",
        "10",
        "--out",
        "s3://bucket/chosen",
    ]
    assert main(chosen) == 0
    assert len(read_objects(own_storage, "chosen/")["subset.parquet"]) > 0


def test_credentials_and_rights_are_named(own_storage, monkeypatch, capsys, tmp_path):
    import s3fs

    job = write_job(tmp_path, "none", "other")
    assert main(["curate", "check", str(job)]) == 0
    assert "no file matches" in capsys.readouterr().out
    assert main(["select", "s3://nobody/rows.jsonl", "--budget", "1"]) == 2
    assert "s3://nobody/rows.jsonl: nothing is there" in capsys.readouterr().err
    with serve_status(403) as port:
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", describe_environment(port)["AWS_ENDPOINT_URL"])
        assert main(["select", "s3://bucket/rows.jsonl", "--budget", "1"]) == 2
        errors = capsys.readouterr().err
        assert "access was denied (403)" in errors
        assert "hunter2" not in errors
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["select", "s3://bucket/rows.jsonl", "--budget", "1"]) == 2
    assert "credentials are required" in capsys.readouterr().err


def run_with_kills(start, server, tmp_path, n_kills, seed):
    client = open_client(server)
    jobs = [write_job(tmp_path, source, f"whole{seed}") for source in ("first", "both")]
    seconds = []
    for job in jobs:
        began = time.monotonic()
        finish(start(job, tmp_path / "cache-whole"))
        seconds.append(time.monotonic() - began)
    expected = {version: read_snapshot(client, f"whole{seed}", version) for version in ("v000001", "v000002")}
    rng, n_killed = np.random.default_rng(seed), 0
    for number in range(4 * n_kills):
        if n_killed == n_kills:
            break
        output, cache = f"pool{seed}-{number}", tmp_path / f"cache{number}"
        killed = number % 2  # the run that is killed: the first, or the one after
        for step, source in enumerate(("first", "both")):
            job = write_job(tmp_path, source, output)
            if step == killed:
                process = start(job, cache)
                time.sleep(rng.uniform(0.3, 1.0) * seconds[step])
                process.send_signal(signal.SIGKILL)
                process.communicate()
                is_killed = process.returncode == -signal.SIGKILL
                n_killed += is_killed
                seconds[step] *= 1.0 if is_killed else 0.7  # it was timed on a busier machine
                check_visible(client, output, expected)
            # on another machine: nothing of the killed run is left but what is on S3
            finish(start(job, tmp_path / f"cache{number}-{step}"), expected=(0, 3))
        check_visible(client, output, expected)
        for version, content in expected.items():
            assert read_snapshot(client, output, version) == content
        assert read_objects(client, f"{output}/latest")[""] == b"snapshots/v000002"
    return n_killed


def test_a_job_killed_at_a_random_moment_makes_the_same_snapshot(start, server, tmp_path):
    run_with_kills(start, server, tmp_path, 1, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_twenty_kills_make_the_same_snapshots(start, server, tmp_path, seed):
    assert run_with_kills(start, server, tmp_path, 5, seed) == 5
