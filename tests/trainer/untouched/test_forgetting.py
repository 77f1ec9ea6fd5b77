"""What training makes a model lose on rows that are not of its task."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import thresher as th
from thresher.dataset import load
from thresher.errors import SettingsError
from thresher.evaluation.forgetting import estimate_forgetting, find_form, measure_bits, name_loss
from thresher.evaluation.gain import Gain
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.fit import build_model, load_untouched_model
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched.forgetting import measure_general, measure_general_base
from thresher.trainer.untouched.general import prepare_general
from thresher.trainer.untouched.settings import EMBEDDED, UntouchedSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUICK = TrainSettings(max_steps=2, batch_size=4, max_length=256, eval_generations=2, max_new_tokens=4)


@pytest.fixture(scope="module")
def context(tiny_llama, question_rows):
    untouched = UntouchedSettings(base="none")
    return resolve_run(question_rows, model=tiny_llama, settings=QUICK, seed=0, untouched=untouched)


@pytest.fixture(scope="module")
def general(context):
    return prepare_general(context, has_answers=True)


@pytest.fixture(scope="module")
def untouched(context, general):
    return measure_general_base(context, general)


def test_an_adapter_whose_update_is_zero_loses_exactly_nothing(context, general, untouched):
    before = untouched
    with torch.random.fork_rng():
        fresh = build_model(context, seed=0).eval()
    after = measure_general(context, general, fresh, has_answers=True)
    assert after.losses.equals(before.losses)
    assert after.answers.equals(before.answers)
    lost = estimate_forgetting([after.losses], before.losses)
    assert (lost.value, lost.low, lost.high) == (0.0, 0.0, 0.0)
    assert name_loss(lost, 0.0) == "kept"


def test_the_more_noise_the_weights_get_the_more_is_lost(context, general, untouched):
    before = untouched
    levels = []
    for noise in (0.0, 0.03, 0.1, 0.3):
        model, generator = load_untouched_model(context), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
        after = measure_general(context, general, model, has_answers=False)
        levels.append(estimate_forgetting([after.losses], before.losses).value)
    assert levels[0] == 0
    assert levels == sorted(levels)
    assert levels[-1] > 0.1


def test_bits_per_byte_are_those_of_a_plain_loop_over_the_rows(context, general, untouched):
    before = untouched
    model, tokenizer = load_untouched_model(context), context.tokenizer
    nats, n_bytes = 0.0, 0
    for source in general.parts[0].rows.sources:
        for line in Path(source.path).read_text(encoding="utf-8").splitlines():
            text = json.loads(line)["text"]
            # this tokenizer has no start of a text: each stands behind the end of another
            ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            if len(ids) >= 512:
                continue
            batch = torch.tensor([ids])
            with torch.inference_mode():
                nats += float(model(input_ids=batch, labels=batch).loss) * (len(ids) - 1)
            n_bytes += len(text.encode())
    texts = before.losses.head(len(general.parts[0].examples))
    assert measure_bits(texts).value == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-6)


def test_training_on_the_general_rows_themselves_loses_less_than_nothing(tiny_llama, tmp_path):
    rows = tmp_path / "general.jsonl"
    rows.write_text("".join(EMBEDDED[1].read_text(encoding="utf-8").splitlines(keepends=True)[:4]), encoding="utf-8")
    settings = TrainSettings(max_steps=40, batch_size=4, learning_rate=1e-2, eval_generations=2, max_length=256)
    adapter = th.train(load(rows), model=tiny_llama, general=rows, settings=settings)
    section = adapter.metrics["general"]
    assert section["lost"]["high"] < 0
    assert section["verdict"] == "kept"
    assert section["set"] == str(rows)
    assert section["after"]["value"] < section["before"]["value"]
    table = pl.read_parquet(adapter.path / "predictions_general.parquet")
    assert set(table.columns) >= {"row_id", "source", "bits_before", "bits_after", "lost", "answer_before"}
    assert len(table) == 4
    assert "forgets nothing: better by " in section["sentence"]


def test_none_measures_nothing_and_a_classifier_has_nothing_to_forget(tiny_llama, tiny_bert, question_rows, color_rows):
    settings = TrainSettings(max_steps=1, batch_size=2, max_length=64)
    adapter = th.train(question_rows[:6], model=tiny_llama, general="none", settings=settings)
    assert adapter.metrics["general"] is None
    with pytest.raises(SettingsError, match="a classifier writes no text"):
        th.train(color_rows, model=tiny_bert, general="rows.jsonl", settings=settings)


def test_the_embedded_set_is_whole():
    texts, questions = (load(path) for path in EMBEDDED)
    assert (len(texts), len(questions)) == (180, 120)
    assert (texts.kind, questions.kind) == ("text", "sft")
    assert texts.n_rejected == questions.n_rejected == 0
    assert sum(path.stat().st_size for path in EMBEDDED) < 150_000
    sums = [row for row in questions.frame.iter_rows(named=True) if row["prompt"].startswith("What is ")]
    for row in sums:
        question = row["prompt"].removeprefix("What is ").rstrip("?")
        question = question.replace(" times ", "*").replace(" divided by ", "//")
        if set(question) <= set("0123456789+-*/ "):
            assert eval(question) == int(row["response"]), row


@pytest.mark.parametrize(
    ("responses", "name"),
    [
        (['{"a": 1}', "[1, 2]", "no"], "JSON"),
        (["6 * 7 = 42\n#### 42"] * 3, 'a line "#### ..."'),
        (["yes", "no "] * 10, "one of the 2 answers of the training rows"),
        ([f"answer number {i} in plain words" for i in range(20)], None),
        (["the same"] * 20, None),
        (["{not json}"] * 2 + ["x", "y", "z"], None),
        ([], None),
    ],
)
def test_the_form_of_a_task_is_what_most_of_its_answers_share(responses, name):
    form = find_form(responses)
    assert (None if form is None else form.name) == name
    if form is not None:
        assert form.matches(responses[0])
        assert not form.matches("Paris")


@pytest.mark.parametrize(
    ("low", "high", "name"), [(0.03, 0.05, "lost"), (-0.01, 0.01, "kept"), (0.01, 0.03, "cannot tell")]
)
def test_what_is_allowed_decides_by_the_interval(low, high, name):
    lost = Gain(value=(low + high) / 2, low=low, high=high, stderr=0.01, n=300, n_seeds=1)
    assert name_loss(lost, 0.02) == name


def test_forgetting_is_paired_by_row_and_weighed_by_bytes():
    before = pl.DataFrame({"row_id": ["a", "b"], "loss": [10.0, 30.0], "n_bytes": [10, 30]})
    after = before.with_columns(loss=pl.Series([11.0, 33.0]))
    lost = estimate_forgetting([after, after], before)
    assert lost.value == pytest.approx(0.1 / math.log(2))
    assert np.isclose(measure_bits(before).value, 1 / math.log(2))
