"""Weights of rows: twice is 2, absent is 0, and alike is nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from thresher.dataset import load
from thresher.errors import InputError, NotFoundError
from thresher.labeling.weak.join import join_labels
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.batches import Batch
from thresher.trainer.engine.fit import fit
from thresher.trainer.engine.losses import class_loss
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train
from thresher.trainer.weights import ZERO, read_weights, weigh_examples

N = 9


@pytest.fixture
def run(tiny_llama, question_rows, tmp_path):
    """Return a function that trains on the examples of some rows, weighed."""

    def train(name, weights, *, repeat=(), **options):
        rows = load([{**row, "w": w} for row, w in zip(question_rows[:N], weights, strict=True)])
        context = resolve_run(rows, model=tiny_llama, settings=TrainSettings(), seed=0)
        fixed = {"max_steps": 3, "batch_size": 50, "learning_rate": 1e-2, "max_length": 128, "precision": "fp32"}
        context = replace(context, settings=TrainSettings(**{**fixed, **options}).resolved("sft"))
        examples = weigh_examples(context.tokenize(rows), rows, None if repeat is None else "w").rows
        examples = [*examples, *(examples[i] for i in repeat or ())]
        trained = fit(context, examples, seed=0, folder=tmp_path / name, run=name)
        parameters = torch.cat([value.detach().flatten() for value in trained.model.state_dict().values()])
        return [row["loss"] for row in trained.history.losses], parameters

    return train


def assert_close(a, b):
    assert a[0] == pytest.approx(b[0], rel=1e-5)
    torch.testing.assert_close(a[1], b[1], rtol=1e-3, atol=1e-5)


def test_a_row_of_weight_2_is_that_row_twice_where_a_step_has_all_rows(run):
    doubled = [2.0 if i in (1, 4) else 1.0 for i in range(N)]
    weighed = run("weighed", doubled)
    assert_close(weighed, run("twice", [1.0] * N, repeat=(1, 4)))
    plain = run("plain", [1.0] * N)
    assert abs(weighed[0][0] - plain[0][0]) > 1e-3  # else the weights would do nothing


def test_weights_alike_give_the_bytes_of_no_weights(run):
    plain, alike = run("plain", [1.0] * N, repeat=None), run("alike", [0.3] * N)
    assert plain[0] == alike[0]
    assert torch.equal(plain[1], alike[1])


@pytest.mark.parametrize("option", [{"gradient_accumulation": 4}, {"packing": True}])
def test_pieces_of_a_step_and_packing_leave_a_weighed_step_alone(run, option):
    weights = list(np.linspace(0.2, 3, N))
    assert_close(run("plain", weights), run("other", weights, **option))


def test_a_row_of_weight_0_is_left_out_and_counted(tiny_llama, question_rows):
    rows = load([{**row, "w": 0 if i < 3 else 2} for i, row in enumerate(question_rows[:N])])
    context = resolve_run(rows, model=tiny_llama, settings=TrainSettings(), seed=0)
    examples = weigh_examples(context.tokenize(rows), rows, "w")
    assert examples.position == list(range(3, N))
    assert [row.weight for row in examples.rows] == [1.0] * (N - 3)  # of mean 1
    assert examples.counts()["rows_left_out"] == {ZERO: 3}


def test_the_loss_of_classes_is_weighed_row_by_row():
    logits, labels, weights = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0.5, 2, 1, 0.1, 3])
    loss = class_loss(lambda: SimpleNamespace(logits=logits), Batch({}, labels, weights))
    log_p = logits.double().log_softmax(dim=1)[torch.arange(5), labels]
    assert float(loss) == pytest.approx(-float((weights.double() * log_p).sum()), rel=1e-6)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0, None, 2.0], "found nothing"),
        ([1.0, -0.5, -3.0], r"found -0.5 .* and 1 more rows"),
        (["1", "many", "2"], "found 'many'"),
        ([1.0, float("inf"), 1.0], "found inf"),
        ([1.0, float("nan"), 1.0], "found nan"),
        ([True, False, True], "found True"),
    ],
)
def test_bad_weights_are_refused_with_their_place(values, found):
    rows = load(pl.DataFrame({"text": ["a", "b", "c"], "label": ["x", "y", "x"], "w": values}))
    with pytest.raises(InputError, match=f"column 'w' must hold a number of at least 0 for each row, {found}"):
        read_weights(rows, "w")


def test_weights_that_are_all_0_and_a_column_that_is_not_there_are_refused():
    rows = load([{"text": "a", "label": "x", "w": 0}, {"text": "b", "label": "y", "w": 0}])
    with pytest.raises(InputError, match="found 0 in all 2 rows"):
        read_weights(rows, "w")
    with pytest.raises(NotFoundError, match="column 'v' not found"):
        read_weights(rows, "v")


def test_other_weights_are_another_training_in_the_same_order_or_not(tiny_llama, question_rows):
    def identify(weights, column):
        rows = load([{**row, "w": w} for row, w in zip(question_rows[:3], weights, strict=True)])
        settings = TrainSettings(weight=column)
        return resolve_run(rows, model=tiny_llama, settings=settings, seed=0).identity()

    assert identify([1, 2, 3], "w") != identify([1, 2, 4], "w")
    assert identify([1, 2, 3], None) == {**identify([1, 2, 4], None), "sources": identify([1, 2, 3], None)["sources"]}
    assert "weight" not in TrainSettings().to_json()


def test_weights_of_a_job_are_told_and_folders_of_rows_are_no_subsets(tiny_bert, color_rows, tmp_path):
    votes = [{"text": row["text"], "anna": row["label"], "thresher_weight": 2} for row in color_rows[:12]]
    join_labels(votes, ["anna"], out=tmp_path / "joined")
    told = []
    fast = {"max_steps": 1, "max_length": 16, "precision": "fp32"}

    def run(name, **options):
        told.clear()
        settings = TrainSettings(**fast, **options)
        out = tmp_path / name
        train(tmp_path / "joined", model=tiny_bert, settings=settings, out=out, on_event=lambda e: told.append(str(e)))
        return [line for line in told if "job weights, which are not used" in line]

    assert len(run("plain")) == 1
    assert run("weighed", weight="thresher_weight") == []
