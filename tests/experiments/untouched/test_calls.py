"""What the cells of an experiment ask of models, counted: nothing is written or measured twice."""

import pytest

import thresher as th
from thresher.dataset import load
from thresher.evaluation.outcomes import Evaluator
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched import row_zero

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Count loads of the untouched model, and answers that are written, with an empty cache."""
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    counts = {"untouched": 0, "answers": 0, "losses": 0}
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

    monkeypatch.setattr(row_zero, "load_untouched_model", count_load)
    monkeypatch.setattr(Evaluator, "generate_answers", count_answers)
    monkeypatch.setattr(Evaluator, "compute_losses", count_losses)
    return counts


def compare(tiny_llama, question_rows, **options):
    settings = TrainSettings(max_steps=2, batch_size=4, max_length=128, max_new_tokens=4)
    shared = {"methods": ["length"], "budget": ["8"], "seeds": 2, "model": tiny_llama, "settings": settings}
    return th.compare(load(question_rows[:30]), eval=load(question_rows[30:]), **shared, **options)


def test_cells_compared_by_loss_write_no_answers_and_share_the_base(tiny_llama, question_rows, calls):
    compare(tiny_llama, question_rows, metric="loss")
    n_cells, n_test = 4, 10  # random and length with two seeds each
    assert calls == {"untouched": 1, "answers": 0, "losses": (n_cells + 1) * n_test}
    compare(tiny_llama, question_rows, metric="loss", detect=0.5)  # another result of the same cells
    assert calls == {"untouched": 1, "answers": 0, "losses": (n_cells + 1) * n_test}


def test_cells_compared_by_answers_write_each_answer_once(tiny_llama, question_rows, calls):
    compare(tiny_llama, question_rows, metric="exact_match")
    assert calls["untouched"] == 1
    assert calls["answers"] == 5 * 10  # four cells and the untouched model
