"""A training that is killed after its last step publishes when it is repeated."""

import json

import pytest

STEPS = 4
SCRIPT = """
import json, os, signal, sys
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train
data, model, folder, points, steps = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), int(sys.argv[5])
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}


def run(out, point):
    n_steps, n_changes = 0, None

    def listen(event):
        nonlocal n_steps, n_changes
        n_steps += event.kind == "step"
        if event.kind == "step" and event.step == steps:
            n_changes = 0

    def audit(name, arguments):
        nonlocal n_changes
        is_write = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if n_changes is None or not (is_write or name in CHANGES):
            return
        n_changes += 1
        if n_changes == point:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    train(data, model=model, eval="20%", out=out, on_event=listen, settings=TrainSettings(
        max_steps=steps, batch_size=8, lora_dropout=0.1, save_every_s=0, max_length=32))
    return n_steps, n_changes


def fork(*arguments):
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(writing, json.dumps(run(*arguments)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else None


n_steps, n_changes = fork(f"{folder}/whole", None)
print(json.dumps([n_steps, n_changes]), flush=True)
for point in points or range(1, n_changes + 1):
    point = int(point % 1 * n_changes) or point % (n_changes + 1)  # a share, or counted from the end
    first = fork(f"{folder}/cut{point}", point)
    print(json.dumps([point, first, fork(f"{folder}/cut{point}", None)]), flush=True)
"""


@pytest.mark.parametrize(
    "points",
    # while the result is written, when all of it is on the disk, and before the last rename
    [[0.4, -5, -1], pytest.param([], marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
    ids=["sample", "all"],
)
def test_killed_at_any_change_on_the_disk_after_the_last_step(
    tiny_bert, color_rows, forks, tmp_path, hash_files, points
):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in color_rows))
    results = tmp_path / "results"
    done = forks.run(["-c", SCRIPT, data, tiny_bert, results, json.dumps(points), STEPS])
    assert done.returncode == 0, done.stderr
    (n_steps, n_changes), *runs = map(json.loads, done.stdout.splitlines())
    assert n_steps == STEPS
    assert len(runs) == (len(points) or n_changes)
    for point, first, (n_repeated, _) in runs:
        assert first is None, f"the run was not killed at change {point} of {n_changes}"
        assert n_repeated <= 1  # killed while the last step was being saved
        assert hash_files(results / f"cut{point}") == hash_files(results / "whole")
    assert {path.name for path in results.iterdir()} == {"whole", *(f"cut{point}" for point, *_ in runs)}
