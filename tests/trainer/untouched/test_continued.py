"""A training that continues an adapter is held against this adapter."""

import pytest

import thresher as th
from thresher.dataset import load
from thresher.trainer.settings import TrainSettings

QUICK = TrainSettings(max_steps=4, batch_size=4, max_length=64, eval_generations=0, learning_rate=1e-3)


@pytest.mark.parametrize("task", ["sft", "classification"])
def test_continuing_is_compared_with_the_adapter_as_it_was(task, tiny_llama, tiny_bert, question_rows, tmp_path):
    model = {"sft": tiny_llama, "classification": tiny_bert}[task]
    rows = question_rows
    if task == "classification":
        rows = [{"text": row["prompt"], "label": "ab"[number % 2]} for number, row in enumerate(question_rows)]
    call = {"model": model, "eval": load(rows[30:]), "settings": QUICK, "general": "none"}
    first = th.train(rows[:15], **call, out=tmp_path / "first")
    later = th.train(rows[15:30], **call, start_from=tmp_path / "first", out=tmp_path / "later")
    before = {each["name"]: each for each in later.metrics["base"]["references"]}["the adapter before"]
    assert before["scores"]["loss"]["value"] == pytest.approx(first.metrics["held_out"]["loss"]["value"], rel=1e-6)
    assert "the adapter before" not in [each["name"] for each in first.metrics["base"]["references"]]
    gain = before["gains"]["loss"]["value"]
    assert gain == pytest.approx(
        before["scores"]["loss"]["value"] - later.metrics["held_out"]["loss"]["value"], rel=1e-4
    )
