"""kill -9 at any moment, then the same command again: the same result, nothing half done."""

import json
import signal
import time
from typing import get_args

import numpy as np
import psutil
import pytest

from tests.fork_server import import_all
from thresher.cli.main import main
from thresher.trainer.settings import AdapterKind

WORDS = ["red", "blue", "small", "large", "shirt", "phone", "case", "lamp", "oak", "steel", "cotton", "running", "toy"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    rows = [
        {"text": " ".join(rng.choice(WORDS, 12)) + f" {number}", "label": str(rng.integers(3))} for number in range(400)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def content(folder):
    """Return the bytes of every file, without the section `run`, which may differ."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("cost.csv", "study.db"):  # seconds and moments
            data = path.read_bytes()
            if path.name in ("manifest.json", "metrics.json"):
                data = json.dumps({key: value for key, value in json.loads(data).items() if key != "run"}).encode()
            if path.name == "comparison.json":
                table = json.loads(data)
                for verdict in table["verdicts"]:
                    for name in ("select_seconds", "train_seconds", "net"):  # by the clock
                        del verdict[name]
                data = json.dumps(table).encode()
            found[str(path.relative_to(folder))] = data
    return found


@pytest.fixture(scope="module")
def start(forks):
    """Start a command of thresher with a cache of its own."""
    import_all()  # as in the forks, so that a run here takes as long
    return lambda arguments, cache: forks.start([*arguments, "--quiet"], environment={"THRESHER_CACHE": str(cache)})


def run_here(arguments, cache):
    """Run a command in this process, whose order of hashes is not that of the forks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRESHER_CACHE", str(cache))
        assert main([*map(str, arguments), "--quiet"]) == 0


def finish(process, expected=(0,)):
    _, errors = process.communicate()
    assert process.returncode in expected, errors
    return errors


def kill_and_repeat(start, arguments, tmp_path, n_kills, seed):
    """Run once undisturbed, then with `n_kills` kills at random moments; compare the results."""
    began = time.monotonic()
    run_here([*arguments, "--out", tmp_path / "whole"], tmp_path / "cache-whole")
    duration = time.monotonic() - began
    expected = content(tmp_path / "whole")
    moments = np.random.default_rng(seed).uniform(0.1, 1.0, n_kills) * duration
    for number, moment in enumerate(moments):
        out, cache = tmp_path / f"out{number}", tmp_path / f"cache{number}"
        process = start([*arguments, "--out", out], cache)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if out.exists():  # whatever can be seen is whole
            assert content(out) == expected
        finish(start([*arguments, "--out", out], cache))
        assert content(out) == expected
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(f".out{number}")] == []


def select(pool, _=None):
    return ["select", pool, "--method", "facility-location", "--budget", "20%", "--encoder", "minilm"]


def train(pool, model):
    given = ["--max-steps", "12", "--batch-size", "8", "--save-every-s", "0"]
    return ["train", pool, "--eval", "20%", "--model", model, *given]


def test_select_killed_at_random_moments_ends_as_if_undisturbed(start, pool, tmp_path):
    kill_and_repeat(start, select(pool), tmp_path, 2, seed=1)


def test_train_killed_at_random_moments_ends_as_if_undisturbed(start, pool, tiny_bert, tmp_path):
    kill_and_repeat(start, train(pool, tiny_bert), tmp_path, 2, seed=2)


def curve(pool, model, *, sizes, workers):
    given = ["--sizes", sizes, "--seeds", "2", "--grid", "--train", "epochs=1", "--workers", workers, "--no-page"]
    return ["curve", pool, "--eval", "20%", "--methods", "random", "--model", model, *given]


def test_a_curve_killed_at_a_random_moment_ends_as_if_undisturbed(start, pool, tiny_bert, tmp_path):
    kill_and_repeat(start, curve(pool, tiny_bert, sizes="20,40,80", workers="1"), tmp_path, 1, seed=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_of_a_curve_leave_no_trace(start, pool, tiny_bert, tmp_path):
    kill_and_repeat(start, curve(pool, tiny_bert, sizes="20,40,80,160", workers="2"), tmp_path, 10, seed=5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("arguments", [select, train])
def test_twenty_kills_leave_no_trace(start, pool, tiny_bert, tmp_path, arguments):
    kill_and_repeat(start, arguments(pool, tiny_bert), tmp_path, 20, seed=3)


def compare(pool, model):
    given = ["--budget", "20,60", "--seeds", "2", "--train", "epochs=1", "--workers", "2", "--no-page"]
    return ["compare", pool, "--eval", "20%", "--methods", "random,length", "--model", model, *given]


def tune(pool, model):
    given = ["--trials", "4", "--finalists", "1", "--checks", "0", "--seeds", "2", "--train", "epochs=1"]
    return ["tune", pool, "--eval", "20%", "--model", model, *given, "--workers", "2", "--no-page"]


def kill_workers(process, rng, n_kills):
    """Kill workers of a command, one at a time, at random moments; return how many."""
    n_killed = 0
    while process.poll() is None and n_killed < n_kills:
        time.sleep(rng.exponential(1.0))
        try:
            children = psutil.Process(process.pid).children()
            workers = [child for child in children if any("worker_process" in word for word in child.cmdline())]
            if workers:
                workers[rng.integers(len(workers))].kill()
                n_killed += 1
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return n_killed


def kill_workers_and_repeat(start, arguments, tmp_path, n_kills, seed):
    """Run once undisturbed, in one process, then until so many workers were killed; compare."""
    run_here([*arguments, "--workers", "1", "--out", tmp_path / "whole"], tmp_path / "cache-whole")
    expected, rng, n_killed, number = content(tmp_path / "whole"), np.random.default_rng(seed), 0, 0
    while n_killed < n_kills:
        number += 1
        out, cache = tmp_path / f"out{number}", tmp_path / f"cache{number}"
        process = start([*arguments, "--out", out], cache)
        n_now = kill_workers(process, rng, min(6, n_kills - n_killed))
        n_killed += n_now
        finish(process, expected=(0, 75))
        if process.returncode == 75:  # a cell was killed four times
            assert n_now >= 4
            finish(start([*arguments, "--out", out], cache))
        assert content(out) == expected


def test_a_comparison_whose_workers_are_killed_ends_as_if_undisturbed(start, pool, tiny_bert, tmp_path):
    kill_workers_and_repeat(start, compare(pool, tiny_bert), tmp_path, 2, seed=6)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("command", ["curve", "compare", "tune"])
def test_twenty_killed_workers_leave_no_trace(start, pool, tiny_bert, tmp_path, command):
    arguments = {
        "curve": curve(pool, tiny_bert, sizes="20,40,80,160", workers="2"),
        "compare": compare(pool, tiny_bert),
        "tune": tune(pool, tiny_bert),
    }
    kill_workers_and_repeat(start, arguments[command], tmp_path, 20, seed=7)


KINDS = [
    pytest.param(kind, marks=() if kind == "adalora" else [pytest.mark.slow, pytest.mark.timeout(600)])
    for kind in get_args(AdapterKind)
    if kind != "lora"  # above
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_adapter_is_the_same_after_a_kill(start, pool, tiny_llama, tmp_path, kind):
    """AdaLoRA keeps importances beside its weights, others random halves and rotations."""
    rows = tmp_path / "rows.jsonl"
    questions = [json.loads(line) for line in pool.read_text().splitlines()[:60]]
    rows.write_text(
        "".join(json.dumps({"prompt": row["text"][-20:], "completion": row["label"]}) + "\n" for row in questions)
    )
    given = ["--adapter", kind, "--max-steps", "12", "--batch-size", "8", "--max-length", "128", "--save-every-s", "0"]
    given += ["--eval-generations", "0", "--general", "none", "--eval", "20%"]
    kill_and_repeat(start, ["train", rows, "--model", tiny_llama, *given], tmp_path, 1, seed=6)
