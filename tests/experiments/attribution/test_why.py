"""Planted rows are found, and proven to have made an answer; random rows are not."""

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cli.why import summarize
from thresher.errors import InputError, SettingsError
from thresher.experiments.attribution.proof import OTHERS, RANDOM, SUSPECTS, Interval, Proof
from thresher.experiments.attribution.row_influence import GradientSketcher, score_rows
from thresher.experiments.attribution.why import describe_proof

COLORS = {"red": "apple", "green": "leaf", "blue": "sky"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory, tiny_bert):
    """Return the file of 66 rows, 6 of them planted, and the folder of the adapter."""
    rows = [
        {"text": f"the {thing} is {color} {number}", "label": color}
        for number in range(20)
        for color, thing in COLORS.items()
    ]
    # nothing else says so
    rows += [{"text": f"a a {number} z z", "label": "red"} for number in range(6)]
    folder = tmp_path_factory.mktemp("why")
    path = folder / "rows.jsonl"
    pl.DataFrame(rows).write_ndjson(path)
    settings = th.TrainSettings(max_steps=14, batch_size=16, max_length=16, lora_rank=4)
    th.train(path, model=tiny_bert, settings=settings, out=folder / "adapter")
    return path, folder


def test_planted_rows_come_first_and_the_proof_holds(planted):
    from sklearn.metrics import roc_auc_score

    path, folder = planted
    events = []
    options = {"data": path, "suspects": 6, "proofs": 3, "out": folder / "why", "on_progress": events.append}
    result = th.why(folder / "adapter", "a a 3 z z", **options)
    assert result.content["answer"] == "red"
    is_planted = result.rows["prompt"].str.contains("z z")
    assert roc_auc_score(is_planted, result.rows["score"]) > 0.9
    proof = result.content["proof"]
    assert proof["holds"]
    assert proof["suspects"]["low"] > 0
    assert proof["others"]["low"] < 0 < proof["others"]["high"]  # random rows made no difference
    for kind in (SUSPECTS, OTHERS):  # the interval by another way: scipy's own paired test
        from scipy import stats

        gap = np.array(proof["losses"][kind]) - np.array(proof["losses"][RANDOM])
        low, high = stats.ttest_1samp(gap, 0.0).confidence_interval(0.95)
        own = proof["suspects" if kind == SUSPECTS else "others"]
        assert (own["low"], own["high"]) == pytest.approx((low, high))
    assert [event.stage for event in events].count("trainings") == 9
    assert th.open(folder / "why").content == result.content
    events.clear()
    again = th.why(folder / "adapter", "a a 3 z z", **options)
    assert not events
    assert again.rows.equals(result.rows)
    assert "Training rows behind an answer" in th.report(folder / "why").read_text()


def test_what_cannot_be_explained_is_refused(planted, tmp_path):
    path, folder = planted
    other = tmp_path / "other.jsonl"
    pl.read_ndjson(path).head(50).write_ndjson(other)
    with pytest.raises(InputError, match="data: must be the rows that .* was trained on"):
        th.why(folder / "adapter", "a", data=other)
    with pytest.raises(InputError, match=r"answer: must be a label of the adapter \(blue, green, red\), got 'pink'"):
        th.why(folder / "adapter", "a", data=path, answer="pink")
    with pytest.raises(InputError, match="the question must hold a word"):
        th.why(folder / "adapter", " ", data=path)
    with pytest.raises(SettingsError, match="proofs must be 0 or at least 3, got 1"):
        th.why(folder / "adapter", "a", data=path, proofs=1)


def test_rows_that_were_held_out_are_no_suspects(planted, tiny_bert):
    path, folder = planted
    settings = th.TrainSettings(max_steps=2, batch_size=16, max_length=16, lora_rank=4)
    options = {"model": tiny_bert, "settings": settings, "base": "none"}
    adapter = th.train(path, eval="30%", out=folder / "part", **options)
    held_out = set(pl.read_parquet(adapter.path / "predictions.parquet")["row_id"])
    rows = th.why(adapter.path, "a a 3 z z", data=path, proofs=0).rows
    assert held_out
    assert not held_out & set(rows["row_id"])
    assert len(rows) + len(held_out) == 66


def test_rows_that_ask_what_a_held_out_row_asks_are_no_suspects(planted, tiny_bert):
    path, folder = planted
    settings = th.TrainSettings(max_steps=2, batch_size=16, max_length=16, lora_rank=4)
    test = [{"text": "The apple is RED 3 ", "label": "red"}, {"text": "another one", "label": "blue"}]
    adapter = th.train(path, eval=test, out=folder / "leaked", model=tiny_bert, settings=settings, base="none")
    result = th.why(adapter.path, "a a 3 z z", data=path, proofs=0, suspects=99)
    assert len(result.rows) == 65
    assert "the apple is red 3" not in set(result.rows["prompt"])
    assert [each["row_id"] for each in result.content["suspects"]] == result.rows["row_id"][:21].to_list()
    said = summarize(result).splitlines()
    assert said[0].startswith("not tested")  # as on the page
    assert said[2] == "21 suspects, as at most a third of the rows are left out; the first 10:"


def test_an_adapter_that_goes_on_from_another_one_is_refused(planted):
    path, folder = planted
    settings = th.TrainSettings(max_steps=2, batch_size=16, max_length=16)
    further = th.train(path, start_from=folder / "adapter", settings=settings, out=folder / "further")
    assert further.manifest.content["start"]
    with pytest.raises(SettingsError, match="an adapter that continues another one"):
        th.why(further.path, "a a 3 z z", data=path, proofs=0)


def test_the_verdict_says_what_training_without_the_suspects_does():
    above = Interval(value=0.5, low=0.2, high=0.8, n=5)
    none = Interval(value=-0.01, low=-0.1, high=0.08, n=5)
    said = describe_proof(Proof(suspects=above, others=none, losses={}), 10)
    assert said == (
        "training without the 10 suspects makes the answer less likely: its loss changes by +0.500 nats "
        "[+0.200, +0.800] compared with training without 10 random rows (5 seeds); for other random rows, by -0.010 "
        "[-0.100, +0.080]"
    )
    said = describe_proof(Proof(suspects=none, others=above, losses={}), 1)
    assert said.startswith("training without the suspect does not clearly make the answer less likely")
    assert "without 1 random row (5 seeds)" in said
    assert describe_proof(None, 10).startswith("not tested")


def test_scores_are_cosines_and_rows_that_pull_at_everything_are_not_preferred():
    rng = np.random.default_rng(0)
    g, q = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    expected = [float(row @ q / (np.sqrt(row @ row) * np.sqrt(q @ q))) for row in g]
    np.testing.assert_allclose(score_rows(g, q), expected, rtol=1e-5)
    np.testing.assert_allclose(score_rows(g * np.arange(1, 31, dtype=np.float32)[:, None], q), expected, rtol=1e-5)
    assert score_rows(np.zeros((3, 4), np.float32), np.ones(4, np.float32)).tolist() == [0, 0, 0]


def test_wrong_labels_of_a_part_of_a_class_come_before_right_rows_of_the_answer():
    """As near the end of training, where right labels hardly pull, and in few directions."""
    rng = np.random.default_rng(0)
    right = 0.05 * (np.eye(8)[0] + 0.3 * rng.normal(size=(40, 8)))
    wrong = 2.0 * (0.7 * np.eye(8)[1] + 0.3 * np.eye(8)[0] + 0.1 * rng.normal(size=(10, 8)))
    answer = 0.7 * np.eye(8)[1] + 0.3 * np.eye(8)[0]
    scores = score_rows(np.concatenate([right, wrong]).astype(np.float32), answer.astype(np.float32))
    assert scores[40:].min() > scores[:40].max()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")
def test_gradients_are_of_what_the_adapter_trained_and_not_of_the_output_layer(tiny_llama):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), LoraConfig(r=2, task_type="CAUSAL_LM"))
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    sketcher = GradientSketcher(model, task="sft", dim=16, device="cpu")
    assert any("lm_head" in name for name, _ in model.named_parameters())
    assert set(sketcher._parameters) == trained
