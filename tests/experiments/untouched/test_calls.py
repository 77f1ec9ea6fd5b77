"""What the cells of an experiment ask of models, counted: nothing is written or measured twice."""

import numpy as np
import pytest

import thresher as th
from thresher.dataset import load
from thresher.errors import InputError
from thresher.evaluation.outcomes import Evaluator
from thresher.experiments.cells import worker_pool
from thresher.trainer.engine.pooled_classifier import PooledClassifier
from thresher.trainer.held_out import HeldOut
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched import base_vectors, row_zero
from thresher.trainer.untouched.shots import put_examples

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Count loads of the untouched model, and answers that are written, with an empty cache."""
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    counts = {"untouched": 0, "answers": 0, "losses": 0, "probes": 0, "cache": str(tmp_path / "cache")}
    load_model, generate, losses = row_zero.load_untouched_model, Evaluator.generate_answers, Evaluator.compute_losses

    def count_load(context):
        counts["untouched"] += 1
        return load_model(context)

    def count_answers(self, model, prompts, *args, **kwargs):
        counts["answers"] += len(prompts)
        return generate(self, model, prompts, *args, **kwargs)

    def count_losses(self, model, rows):
        counts["losses"] += len(rows)
        return losses(self, model, rows)

    measure = HeldOut.measure

    def count_probes(self, model):
        is_probe = not isinstance(model, base_vectors._KeptProbe) and is_untouched(model)
        counts["probes"] += is_probe
        return measure(self, model)

    monkeypatch.setattr(HeldOut, "measure", count_probes)
    monkeypatch.setattr(row_zero, "load_untouched_model", count_load)
    monkeypatch.setattr(Evaluator, "generate_answers", count_answers)
    monkeypatch.setattr(Evaluator, "compute_losses", count_losses)
    return counts


def is_untouched(model):
    """Tell whether the adapter of a classifier is as it was before the first step."""
    updates = [value for name, value in model.named_parameters() if "lora_B" in name]
    return isinstance(model, PooledClassifier) and not any(bool(value.any()) for value in updates)


def compare(tiny_llama, question_rows, **options):
    settings = TrainSettings(max_steps=2, batch_size=4, max_length=128, max_new_tokens=4)
    shared = {"methods": ["length"], "budget": ["8"], "seeds": 2, "model": tiny_llama, "settings": settings}
    return th.compare(load(question_rows[:30]), eval=load(question_rows[30:]), **shared, **options)


def test_cells_compared_by_loss_write_no_answers_and_share_the_base(tiny_llama, question_rows, calls):
    compare(tiny_llama, question_rows, metric="loss")
    n_cells, n_test = 4, 10  # random and length with two seeds each
    expected = {"untouched": 1, "answers": 0, "losses": (n_cells + 1) * n_test}
    assert calls | expected == calls
    compare(tiny_llama, question_rows, metric="loss", detect=0.5)  # another result, the same cells
    assert calls | expected == calls


def test_rows_in_the_prompt_are_those_that_were_trained_on(tiny_llama, question_rows, calls, monkeypatch):
    """Row zero with examples has what training has: rows of its method and size, and no more."""
    shown, learned, train = [], [], worker_pool.train_and_measure

    def put(context, held_out, k):
        shown.append(frozenset(context.split.train.frame["row_id"]))
        return put_examples(context, held_out, k)

    def learn(job, work):
        if job.seeds == (0,):
            learned.append(frozenset(job.split.train.frame["row_id"]))
        return train(job, work)

    monkeypatch.setattr(row_zero, "put_examples", put)
    monkeypatch.setattr(worker_pool, "train_and_measure", learn)
    found = compare(tiny_llama, question_rows, metric="loss", shots=(0, 2), redraw=1.0)
    assert len(set(shown)) == len(shown) == 2  # of random and of length
    assert set(shown) == set(learned)
    assert [each["name"] for each in found.content["base"]["references"]] == ["untouched", "2 in the prompt"]
    gains = [entry["gains"][0] for entry in found.content["base"]["methods"].values()]
    assert len(gains) == 2
    assert {gain["n"] for gain in gains} == {10}


def test_held_out_texts_are_read_once_for_the_probes_of_all_cells(tiny_bert, calls, monkeypatch):
    rng = np.random.default_rng(0)
    words = ["apple", "leaf", "sky", "fox", "river", "stone"]
    rows = [
        {"text": f"{' '.join(rng.choice(words, 5))} {number}", "label": ("red", "green")[number % 2]}
        for number in range(60)
    ]
    settings = TrainSettings(max_steps=2, batch_size=8, max_length=32, pooling="mean")
    options = {"methods": ["length"], "budget": ["16"], "seeds": 2, "model": tiny_bert, "settings": settings}
    shared = th.compare(load(rows[:40]), eval=load(rows[40:]), **options)
    assert calls["probes"] == 1
    monkeypatch.setattr(base_vectors, "_can_share", lambda held_out, model: False)
    monkeypatch.setenv("THRESHER_CACHE", f"{calls['cache']}-other")
    alone = th.compare(load(rows[:40]), eval=load(rows[40:]), **options)
    assert calls["probes"] == 1 + 4
    assert shared.content["base"] == alone.content["base"]  # to the last bit
    assert shared.cells.drop("cell").equals(alone.cells.drop("cell"))


def test_cells_compared_by_answers_write_each_answer_once(tiny_llama, question_rows, calls):
    compare(tiny_llama, question_rows, metric="exact_match")
    assert calls["untouched"] == 1
    assert calls["answers"] == 5 * 10  # four cells and the untouched model


def test_test_rows_that_cannot_be_measured_end_an_experiment_after_its_first_cell(tiny_llama, question_rows, calls):
    long = [{**row, "prompt": f"{row['prompt']} {'and one more ' * 40}"} for row in question_rows[31:]]
    settings = TrainSettings(max_steps=1, batch_size=4, max_length=64)
    with pytest.raises(
        InputError, match="1 of 10 can be; 9 rows: nothing of the response is within max_length; raise max_length"
    ):
        th.compare(
            load(question_rows[:30]),
            eval=load([question_rows[30], *long]),
            model=tiny_llama,
            settings=settings,
            metric="loss",
            methods=["length"],
            budget=["8"],
            seeds=2,
        )
    assert calls["losses"] == 1
