"""One run: what changes its result, and what must not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.evaluation.estimate import Estimate
from thresher.models.causal_lm.base_model import find_base, load_tokenizer
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.fit import build_model, count_steps, fit, refuse_packing
from thresher.trainer.engine.lora import get_trainable_parameters
from thresher.trainer.engine.tokenization import tokenize
from thresher.trainer.settings import TrainSettings


@pytest.fixture
def run(tiny_llama, question_rows, tmp_path):
    """Return a function that trains with some settings and returns the result."""
    rows = load(question_rows)

    def train(*, seed=0, name="run", evaluate=None, on_event=lambda event: None, **options):
        fixed = {"max_steps": 6, "batch_size": 7, "learning_rate": 1e-2, "max_length": 128, "precision": "fp32"}
        context = resolve_run(rows, model=tiny_llama, settings=TrainSettings(), seed=seed, on_event=on_event)
        # after the checks: `evaluate` stands for the held-out rows that early stopping needs
        context = replace(context, settings=TrainSettings(**{**fixed, **options}).resolved("sft"))
        examples = context.tokenize(rows)
        return fit(context, examples.rows, seed=seed, folder=tmp_path / name, run=name, evaluate=evaluate)

    return train


def weights(trained):
    return torch.cat([value.detach().flatten() for value in trained.model.state_dict().values()])


def losses(trained):
    return [row["loss"] for row in trained.history.losses]


def test_training_lowers_the_loss(run):
    by_step = losses(run(max_steps=40, learning_rate=5e-2))
    assert sum(by_step[-5:]) < 0.8 * sum(by_step[:5])


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(run):
    first = run(name="a", lora_dropout=0.1)
    torch.manual_seed(99)
    assert torch.equal(weights(first), weights(run(name="b", lora_dropout=0.1)))
    assert not torch.equal(weights(first), weights(run(name="c", lora_dropout=0.1, seed=1)))


def test_the_random_state_of_the_caller_is_left_alone(run):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(max_steps=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("option", [{"gradient_accumulation": 3}, {"packing": True}, {"gradient_checkpointing": True}])
def test_accumulation_packing_and_checkpointing_leave_the_result_alone(run, option):
    """7 of 40 rows a step: the last step is smaller, and pieces differ in their tokens."""
    expected, other = run(name="plain"), run(name="other", **option)
    assert losses(other) == pytest.approx(losses(expected), rel=1e-5)
    torch.testing.assert_close(weights(other), weights(expected), rtol=1e-3, atol=1e-5)


def test_the_loss_of_a_step_is_the_mean_over_its_tokens(run, tiny_llama, question_rows):
    from transformers import AutoModelForCausalLM

    base = find_base(tiny_llama)
    rows = tokenize(load(question_rows), load_tokenizer(base), task="sft", max_length=128, loss_on="all-assistant").rows
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    total = count = 0
    with torch.inference_mode():
        for row in rows:
            ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
            n = int((labels[:, 1:] != -100).sum())
            total, count = total + float(model(input_ids=ids, labels=labels).loss) * n, count + n
    # a fresh adapter changes nothing, so the first step over all rows has the loss of the base
    assert losses(run(max_steps=1, batch_size=len(rows)))[0] == pytest.approx(total / count, rel=1e-5)


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_run_that_is_cut_off_continues_to_the_same_bits(run, stop_at):
    options = {"lora_dropout": 0.1, "save_every_s": 0.0}

    def die(event):
        if event.kind == "save" and event.step == stop_at:
            raise _Killed

    undisturbed = run(name="whole", **options)
    with pytest.raises(_Killed):
        run(name="cut", on_event=die, **options)
    steps = []
    continued = run(name="cut", on_event=lambda event: steps.append(event.step), **options)
    assert steps[0] == stop_at
    assert torch.equal(weights(continued), weights(undisturbed))
    assert continued.history == undisturbed.history


def test_early_stopping_keeps_the_weights_of_the_lowest_loss(run):
    script = iter([3.0, 1.0, 2.0, 2.5, 0.1])
    stopped = run(
        name="early",
        max_steps=20,
        eval_every=2,
        early_stopping_patience=2,
        evaluate=lambda _: Estimate(next(script), 0.1, 9),
    )
    assert (stopped.history.step, stopped.history.best_step, stopped.history.is_stopped) == (8, 4, True)
    copies = []
    run(
        name="until-4",
        max_steps=20,
        eval_every=4,
        evaluate=lambda model: copies.append(trainable_copy(model)) or Estimate(1, 0, 1),
    )
    for name, value in trainable_copy(stopped.model).items():
        assert torch.equal(value, copies[0][name])


def trainable_copy(model):
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def test_a_loss_that_is_no_number_stops_with_advice(run):
    with pytest.raises(SettingsError, match=r"the loss became (nan|inf) at step \d+; lower learning_rate"):
        run(learning_rate=1e30, max_grad_norm=1e30, max_steps=20)


def test_a_gradient_that_is_no_number_stops_the_run_even_at_its_last_step(run, monkeypatch):
    """The loss of that step is fine and no later one follows: the adapter would be full of NaN."""
    from thresher.trainer.engine import fit as module

    def broken(model, batch, of_rows):
        logits = model(**batch.inputs).logits
        return (logits - logits.detach()).sum().sqrt() + 2.0  # 2, with the root's gradient at 0

    monkeypatch.setattr(module, "token_loss", broken)
    with pytest.raises(SettingsError, match=r"the gradient became (nan|inf) at step 1; lower learning_rate"):
        run(max_steps=1)


def test_a_step_that_does_not_fit_the_device_is_one_sentence(run, monkeypatch):
    from thresher.trainer.engine import fit as module

    def full(model, batch, of_rows):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(module, "token_loss", full)
    with pytest.raises(SettingsError, match=r"step 1 must fit the device's memory .*gradient_accumulation \(now 1\)"):
        run(max_steps=1)


def test_a_run_that_is_judged_early_is_measured_at_its_end(run):
    stopped = run(
        max_steps=10,
        stop_at=0.5,
        eval_every=4,
        early_stopping_patience=3,
        evaluate=lambda _: Estimate(1.0, 0.1, 9),
    )
    assert [each["step"] for each in stopped.history.evaluations] == [4, 5]


@pytest.mark.parametrize("option", [{"rslora": True}, {"dora": True}, {"lora_targets": ("q_proj",)}])
def test_variants_of_lora_train(run, option):
    plain, variant = run(name="plain", max_steps=3), run(name="variant", max_steps=3, **option)
    assert losses(variant) != losses(plain)


def test_auto_targets_are_all_linear_layers_but_the_head(tiny_llama):
    context = resolve_run([{"prompt": "a", "completion": "b"}], model=tiny_llama, settings=TrainSettings(), seed=0)
    with torch.random.fork_rng():
        names = {
            name.split(".lora_")[0].rsplit(".", 1)[-1]
            for name in get_trainable_parameters(build_model(context, seed=0))
        }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    wrong = replace(context, settings=replace(context.settings, lora_targets=("query",)))
    with (
        torch.random.fork_rng(),
        pytest.raises(InputError, match=r"lora_targets: must name layers of the model.*q_proj"),
    ):
        build_model(wrong, seed=0)


def test_packing_is_refused_where_rows_could_see_each_other():
    with pytest.raises(SettingsError, match="one|classification"):
        refuse_packing(SimpleNamespace(model_type="bert"), "classification", 64)
    windowed = SimpleNamespace(
        model_type="gemma", layer_types=["sliding_attention", "full_attention"], sliding_window=32
    )
    with pytest.raises(SettingsError, match="full attention in every layer"):
        refuse_packing(windowed, "sft", 64)
    refuse_packing(windowed, "sft", 32)
    with pytest.raises(SettingsError, match="linear_attention"):
        refuse_packing(SimpleNamespace(model_type="next", layer_types=["linear_attention"]), "sft", 64)


@pytest.mark.parametrize(
    ("settings", "steps"), [({"epochs": 2}, 6), ({"epochs": 0.1}, 1), ({"epochs": 0.5}, 2), ({"max_steps": 11}, 11)]
)
def test_steps_follow_from_epochs_or_are_given(settings, steps):
    assert count_steps(40, TrainSettings(batch_size=16, **settings).resolved("sft")) == steps
