"""A training that is killed, interrupted or shared by processes ends as an undisturbed one does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train

SCRIPT = """
import sys
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train
data, model, out = sys.argv[1:]
train(data, model=model, eval="20%", out=out, settings=TrainSettings(
    max_steps=40, batch_size=8, lora_dropout=0.1, save_every_s=0, eval_every=10, max_length=32))
"""


def finish(process):
    _, errors = process.communicate()
    assert process.returncode == 0, errors


@pytest.mark.parametrize("moments", [[13], pytest.param([1, 25, 38], marks=pytest.mark.slow)])
def test_a_killed_run_gives_the_same_bytes_when_it_is_repeated(
    tiny_bert, color_rows, forks, tmp_path, hash_files, monkeypatch, moments
):
    """Killed when the n-th checkpoint appears, while the work goes on."""
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in color_rows))
    # in this process, whose order of hashes is not that of the forks
    monkeypatch.setattr(sys, "argv", ["-c", str(data), str(tiny_bert), str(tmp_path / "whole")])
    exec(SCRIPT, {})
    for number, step in enumerate(moments):
        out = tmp_path / f"cut{number}"
        process = forks.start(["-c", SCRIPT, data, tiny_bert, out])
        _wait_for_checkpoint(tmp_path / f".cut{number}.partial", step, process)
        process.kill()
        process.communicate()
        assert not out.exists() or hash_files(out) == hash_files(tmp_path / "whole")
        finish(forks.start(["-c", SCRIPT, data, tiny_bert, out]))
        assert hash_files(out) == hash_files(tmp_path / "whole")


def _wait_for_checkpoint(work: Path, step: int, process) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        steps = [int(path.stem.removeprefix("checkpoint-")) for path in work.glob(".runs/*/checkpoint-*")]
        if steps and max(steps) >= step:
            return
        time.sleep(0.002)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tiny_llama, question_rows, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom thresher.trainer.settings import TrainSettings\nfrom thresher.trainer.train import train\n"
        "train(sys.argv[1], model=sys.argv[2], eval='20%', out=sys.argv[3], settings=TrainSettings("
        "max_steps=9, batch_size=7, learning_rate=1e-2, eval_generations=3, max_new_tokens=4, eval_every=3,"
        "early_stopping_patience=5))\n"
    )
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in question_rows))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    for n in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={n}", "--master-port=29611"]
        subprocess.run(
            [*command, script, data, tiny_llama, tmp_path / f"by{n}"], env=environment, check=True, timeout=240
        )
    from safetensors.numpy import load_file

    one, two = (load_file(tmp_path / f"by{n}" / "adapter_model.safetensors") for n in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    first, second = (json.loads((tmp_path / f"by{n}" / "metrics.json").read_bytes()) for n in (1, 2))
    assert second["held_out"]["loss"]["value"] == pytest.approx(first["held_out"]["loss"]["value"], rel=1e-5)
    assert second["counts"] == first["counts"]


def test_an_interrupted_run_keeps_its_checkpoint(tiny_bert, color_rows, tmp_path):
    def interrupt(event):
        if event.kind == "step" and event.step == 7:
            raise KeyboardInterrupt

    settings = TrainSettings(max_steps=9, save_every_s=0, max_length=32)
    with pytest.raises(KeyboardInterrupt):
        train(color_rows, model=tiny_bert, out=tmp_path / "a", settings=settings, on_event=interrupt)
    assert not (tmp_path / "a").exists()
    # as a kill in the middle of a write leaves
    (tmp_path / ".a.partial" / f".metrics.json.tmp{'7' * 32}").write_bytes(b"half")
    started = []
    train(color_rows, model=tiny_bert, out=tmp_path / "a", settings=settings, on_event=started.append)
    assert next(event.step for event in started if event.kind == "start") == 6
    assert [path for path in (tmp_path / "a").rglob(".*")] == []
