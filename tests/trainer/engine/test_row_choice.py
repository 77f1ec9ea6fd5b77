"""Which rows and tokens are learned: nothing chosen is plain training, and the mean stays."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.trainer import runs
from thresher.trainer.context import resolve_run
from thresher.trainer.engine import checkpoint
from thresher.trainer.engine.batches import Batch, BatchSampler, pad_rows
from thresher.trainer.engine.fit import fit
from thresher.trainer.engine.loop import _sum_over_processes
from thresher.trainer.engine.losses import class_loss, token_loss
from thresher.trainer.engine.row_choice.skipping import First, Revisit
from thresher.trainer.engine.row_choice.step_rows import StepRows, mask_answer
from thresher.trainer.engine.tokenization import IGNORED, Example, Examples
from thresher.trainer.novel_tokens import NOT_NOVEL, choose_tokens, keep_novel_tokens
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train

N = 12
FAST = {"epochs": 4, "batch_size": 4, "learning_rate": 1e-2, "max_length": 64, "precision": "fp32"}


@pytest.fixture(scope="module")
def run(tiny_llama, question_rows, tmp_path_factory):
    """Return a function that trains with some settings and returns weights and the result."""
    rows = load(question_rows[:N])
    plain = resolve_run(rows, model=tiny_llama, settings=TrainSettings(), seed=0)
    examples = plain.tokenize(rows).rows

    def train_rows(folder=None, **options):
        context = replace(plain, settings=TrainSettings(**{**FAST, **options}).resolved("sft"))
        work = tmp_path_factory.mktemp("run") if folder is None else folder
        trained = fit(context, examples, seed=0, folder=work, run="run")
        return torch.cat([value.detach().flatten() for value in trained.model.state_dict().values()]), trained

    return train_rows


def sampler(n, *, batch_size=3, epochs=8, lengths=None):
    rows = [Example(f"r{i}", [1] * (lengths[i] if lengths else 4), [1]) for i in range(n)]
    return BatchSampler(rows, batch_size=batch_size, seed=0, n_steps=epochs * -(-n // batch_size))


@pytest.mark.parametrize("options", [{"skip": "revisit", "skip_rate": 0}, {"skip": "first", "skip_rate": 0}])
def test_a_chance_of_0_gives_the_bytes_of_plain_training(run, options):
    weights, trained = run(**options)
    assert torch.equal(weights, run()[0])
    assert not trained.skipped["skipped"].any()
    assert trained.skipped["loss"].null_count() == 0


@pytest.mark.parametrize("skip", ["revisit", "first"])
def test_rows_are_skipped_and_a_run_that_goes_on_gives_the_same_bytes(run, tmp_path, skip, monkeypatch):
    options = {"skip": skip, "skip_rate": 0.7, "save_every_s": 0.0}
    weights, trained = run(**options)
    assert trained.skipped["skipped"].any()
    assert trained.skipped.filter(pl.col("epoch") == 1).height == N
    assert not torch.equal(weights, run()[0])

    class Killed(Exception):
        pass

    save = checkpoint.save

    def kill(folder, parameters, optimizer, history, **state):
        save(folder, parameters, optimizer, history, **state)
        if history.step == 7:  # in the middle of the third epoch
            raise Killed

    monkeypatch.setattr(checkpoint, "save", kill)
    with pytest.raises(Killed):
        run(tmp_path / "cut", **options)
    monkeypatch.setattr(checkpoint, "save", save)
    again, resumed = run(tmp_path / "cut", **options)
    assert torch.equal(weights, again)
    assert resumed.skipped.equals(trained.skipped)


def test_the_expected_gradient_over_all_masks_is_that_of_all_rows():
    gradient, losses, rate = np.array([[1.0, -2.0], [0.5, 4.0], [3.0, 0.1]]), np.array([0.1, 0.2, 3.0]), 0.3
    total = np.zeros(2)
    for is_low in product((True, False), repeat=3):  # which of the draws are below the rate
        skipping = Revisit(sampler(3), rate)
        skipping.record(0, np.arange(3), losses)
        skipping._judge = lambda *_, low=is_low: (losses < losses.mean(), np.where(low, 0.0, 0.99))
        factors = skipping.choose(1, np.arange(3), None)
        chance = np.prod([rate if low else 1 - rate for low in is_low])
        total += chance * (factors[:, None] * gradient).sum(axis=0)
    np.testing.assert_allclose(total, gradient.sum(axis=0), atol=1e-12)


def test_revisit_skips_half_of_the_easy_rows_but_not_in_the_first_epoch_and_at_the_end():
    batches = sampler(3000, batch_size=3000)
    skipping = Revisit(batches, 0.5)
    rows, losses = np.arange(3000), np.where(np.arange(3000) < 2000, 0.1, 1.0)
    assert (skipping.choose(0, rows, None) == 1).all()
    skipping.record(0, rows, losses)
    factors = skipping.choose(1, rows, None)
    assert (factors[2000:] == 1).all()
    assert set(factors[:2000].tolist()) == {0.0, 2.0}
    assert np.mean(factors[:2000] == 0) == pytest.approx(0.5, abs=0.04)
    assert (skipping.choose(7, rows, None) == 1).all()  # the last eighth
    # a row that is skipped keeps its last loss
    kept = rows[factors > 0]
    skipping.record(1, kept, np.full(len(kept), 0.6))
    assert (skipping.choose(2, rows, None)[2000:] == 1).all()


def test_first_judges_a_row_among_rows_of_its_length():
    lengths = [4] * 30 + [64] * 30
    batches = sampler(60, batch_size=60, lengths=lengths)
    skipping = First(batches, 0.9)
    rows = np.arange(60)
    losses = np.where(np.array(lengths) == 4, 1.0, 5.0)
    assert (skipping.choose(0, rows, losses) == 1).all()  # nothing is known yet
    easier = losses - np.where(rows % 2, 0.5, -0.5)
    factors = skipping.choose(1, rows, easier)
    assert (factors[rows % 2 == 0] == 1).all()
    assert {round(factor, 9) for factor in factors[rows % 2 == 1]} <= {0.0, 10.0}
    assert (factors == 0).sum() > 15


def test_losses_of_rows_are_means_over_their_learned_tokens(tiny_llama):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    rows = [Example("a", [3, 4, 5, 6], [IGNORED, 4, 5, 6], 2.0), Example("b", [7, 8, 9], [IGNORED, IGNORED, 9])]
    of_rows = []
    token_loss(model, pad_rows(rows, pad_id=0), of_rows)
    for row, loss in zip(rows, of_rows[0].tolist(), strict=True):
        alone = token_loss(model, pad_rows([replace(row, weight=1.0)], pad_id=0)).item()
        assert loss == pytest.approx(alone / row.n_learned, rel=1e-5)
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 1])
    class_loss(lambda: SimpleNamespace(logits=logits), Batch({}, labels), of_rows)
    assert of_rows[1].tolist() == pytest.approx((-logits.log_softmax(1)[range(3), labels]).tolist())


def test_only_tokens_of_the_answer_are_masked_and_all_are_learned(run):
    row = Example("a", list(range(100, 1100)), [IGNORED] * 500 + list(range(600, 1100)))
    masked = mask_answer(row, 0.2, pad_id=0, seed=(0, 1, 2))
    assert masked.labels == row.labels
    assert masked.input_ids[:500] == row.input_ids[:500]
    assert np.mean(np.array(masked.input_ids[500:]) == 0) == pytest.approx(0.2, abs=0.05)
    assert mask_answer(row, 0.2, pad_id=0, seed=(0, 2, 2)) != masked
    assert torch.equal(run(mask_answer=0.0)[0], run()[0])
    assert not torch.equal(run(mask_answer=0.2)[0], run()[0])


def test_the_tokens_of_the_highest_excess_are_learned():
    rows = [
        Example("a", [1, 2, 3, 4], [IGNORED, 2, 3, 4]),
        Example("b", [5, 6], [5, 6]),  # nothing predicts its first token
        Example("c", [7, 8, 9], [IGNORED, 8, 9]),
    ]
    examples = Examples(8, rows, [0, 1, 2])
    chosen = choose_tokens(examples, np.array([0.1, 3.0, 2.0, -1.0, 0.2, 0.3]), 0.5)
    assert [row.labels for row in chosen.rows] == [[IGNORED, IGNORED, 3, 4], [IGNORED, IGNORED, 9]]
    assert chosen.position == [0, 2]
    assert chosen.left_out == {NOT_NOVEL: 1}
    assert choose_tokens(examples, np.zeros(6), 1.0).rows == rows


def test_novel_tokens_are_those_that_the_reference_has_learned(tiny_llama, tmp_path):
    told = [{"prompt": f"q {i}", "completion": "the yellow submarine"} for i in range(8)]
    fast = TrainSettings(max_steps=25, learning_rate=5e-2, batch_size=8, precision="fp32", max_length=64)
    train(told, model=tiny_llama, settings=fast, out=tmp_path / "reference")
    rows = load(
        [{"prompt": "q 3", "completion": "the yellow submarine"}, {"prompt": "x", "completion": "go home at 5"}]
    )
    settings = TrainSettings(tokens="novel", token_share=0.5, token_reference=str(tmp_path / "reference"))
    context = resolve_run(rows, model=tiny_llama, settings=settings, seed=0)
    chosen = keep_novel_tokens(context, context.tokenize(rows))
    n_learned = {row.row_id: row.n_learned for row in chosen.rows}
    whole = {row.row_id: row.n_learned for row in context.tokenize(rows).rows}
    first, second = rows.frame["row_id"]
    assert n_learned[first] / whole[first] > n_learned.get(second, 0) / whole[second]
    plain = resolve_run(rows, model=tiny_llama, settings=TrainSettings(), seed=0)
    assert context.identity() != plain.identity()
    all_tokens = replace(context, settings=replace(settings, token_share=1.0).resolved("sft"))
    assert keep_novel_tokens(all_tokens, context.tokenize(rows)).rows == context.tokenize(rows).rows
    config = tmp_path / "reference/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "another/base"}))
    with pytest.raises(InputError, match=r"an adapter of the base .* is required, found one of 'another/base'"):
        resolve_run(rows, model=tiny_llama, settings=settings, seed=0)


def test_rows_that_weigh_nothing_have_no_say_in_which_tokens_are_novel(tiny_llama, monkeypatch):
    rows = load([{"prompt": f"q {i}", "completion": "yes", "w": i % 2} for i in range(4)])
    context = resolve_run(rows, model=tiny_llama, settings=TrainSettings(weight="w"), seed=0)
    monkeypatch.setattr(runs, "keep_novel_tokens", lambda _, examples: examples.rows)
    assert [row.row_id for row in runs.tokenize_rows(context, rows)] == rows.frame["row_id"].to_list()[1::2]


def test_losses_are_exchanged_on_the_device_of_the_processes():
    devices = []

    def reduce(values, reduction):
        devices.append((values.device.type, reduction))
        return torch.tensor([[2.0, 0.0], [1.0, 0.0]])

    accelerator = SimpleNamespace(device=torch.device("meta"), reduce=reduce)
    losses = StepRows(0, np.arange(2)).collect(np.arange(2), partial(_sum_over_processes, accelerator))
    np.testing.assert_array_equal(losses, [2.0, np.nan])
    assert devices == [("meta", "sum")]


def test_a_control_of_the_same_rows_is_trained_plainly(tiny_bert, color_rows, tmp_path):
    settings = TrainSettings(max_steps=12, batch_size=12, max_length=16, precision="fp32", skip="revisit")
    options = {"model": tiny_bert, "eval": "25%", "settings": settings}
    adapter = train(color_rows, out=tmp_path / "a", control="same", **options)
    metrics = adapter.metrics
    assert metrics["control"]["is_same"]
    assert metrics["skipping"]["passes"] > 100
    assert 0 < metrics["skipping"]["skipped"] < metrics["skipping"]["passes"]
    assert pl.read_parquet(tmp_path / "a/skipped.parquet")["skipped"].sum() == metrics["skipping"]["skipped"]
    plain = train(color_rows, out=tmp_path / "b", **{**options, "settings": settings.plain})
    assert metrics["control"]["held_out"] == plain.metrics["held_out"]
    assert not (tmp_path / "a/control/skipped.parquet").exists()
    with pytest.raises(SettingsError, match="'same' trains the same rows without weight, skip"):
        train(color_rows, out=tmp_path / "c", control="same", **{**options, "settings": settings.plain})
    with pytest.raises(InputError, match="both trainings are compared on held-out rows"):
        train(color_rows, out=tmp_path / "c", control="same", **{**options, "eval": None})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip_rate": 0.3}, "skip_rate .0.3. is of skip"),
        ({"skip": "first", "packing": True}, "skip and packing exclude each other"),
        ({"tokens": "novel"}, "tokens 'novel' and token_reference go together"),
        ({"token_share": 0.3}, "token_share .0.3. is of tokens 'novel'"),
        ({"skip": "revisit", "skip_rate": 1.0}, "skip_rate"),
    ],
)
def test_what_contradicts_itself_is_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        TrainSettings(**options)


def test_classifiers_have_no_tokens_to_choose(tiny_bert, color_rows):
    with pytest.raises(SettingsError, match="mask_answer is for language models, and these rows have labels"):
        resolve_run(color_rows, model=tiny_bert, settings=TrainSettings(mask_answer=0.1), seed=0)


@pytest.mark.slow
def test_two_processes_look_at_rows_and_skip_the_same_ones(tiny_llama, question_rows, tmp_path):
    # nine rows in steps of eight: one process has no row in the last step
    script, data = tmp_path / "script.py", tmp_path / "rows.jsonl"
    script.write_text(
        "import sys\nfrom thresher.trainer.settings import TrainSettings\nfrom thresher.trainer.train import train\n"
        "train(sys.argv[1], model=sys.argv[2], out=sys.argv[3], settings=TrainSettings("
        "epochs=4, batch_size=8, learning_rate=1e-2, skip='first', skip_rate=0.7))\n"
    )
    data.write_text("".join(json.dumps(row) + "\n" for row in question_rows[:9]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    for n in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={n}", "--master-port=29613"]
        subprocess.run(
            [*command, script, data, tiny_llama, tmp_path / f"by{n}"], env=environment, check=True, timeout=120
        )
    one, two = (pl.read_parquet(tmp_path / f"by{n}" / "skipped.parquet") for n in (1, 2))
    assert one["skipped"].sum() > 0
    assert one["skipped"].to_list() == two["skipped"].to_list()
    np.testing.assert_allclose(two["loss"].fill_null(0), one["loss"].fill_null(0), rtol=1e-3)
