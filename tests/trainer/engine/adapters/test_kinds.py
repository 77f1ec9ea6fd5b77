"""Every kind of adapter trains, resumes, is read back, and merges or refuses."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.adapters.kinds import check_adapter, fit_settings
from thresher.trainer.engine.adapters.layer_choice import list_left_out
from thresher.trainer.engine.adapters.updates import FallingRanks
from thresher.trainer.engine.fit import build_model, fit, load_trained_model
from thresher.trainer.engine.lora import get_trainable_parameters, merge_adapter, save_adapter
from thresher.trainer.engine.losses import token_loss
from thresher.trainer.settings import AdapterKind, TrainSettings

KINDS = get_args(AdapterKind)
FAST = {("sft", "half"), ("sft", "pissa"), ("sft", "prompt"), ("sft", "full")}
FAST |= {("classification", "adalora"), ("classification", "vera"), ("classification", "full")}
CASES = [
    pytest.param(task, kind, marks=() if (task, kind) in FAST else pytest.mark.slow)
    for task in ("sft", "classification")
    for kind in KINDS
    if (task, kind) != ("classification", "prefix")
]
NOT_MERGED = ("prompt", "prefix", "full")
FIXED = {"max_steps": 6, "batch_size": 7, "learning_rate": 1e-2, "max_length": 64, "precision": "fp32"}


class StopError(Exception):
    """The run is interrupted."""


@pytest.fixture(scope="module")
def prepare(tiny_llama, tiny_bert, question_rows, color_rows):
    """Return a function from task and settings to context and examples."""
    rows = {"sft": load(question_rows), "classification": load(color_rows)}
    model = {"sft": tiny_llama, "classification": tiny_bert}

    def resolve(task="sft", *, on_event=lambda event: None, start_from=None, **options):
        settings = TrainSettings(**{**FIXED, **options})
        context = resolve_run(
            rows[task], model=model[task], settings=settings, seed=0, on_event=on_event, start_from=start_from
        )
        return context, context.tokenize(rows[task]).rows

    return resolve


def read_logits(context, model, rows):
    ids = torch.tensor([rows[0].input_ids])
    with torch.inference_mode():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[..., -4:, :]


@pytest.mark.parametrize(("task", "kind"), CASES)
def test_each_kind_resumes_is_read_back_and_merges_or_refuses(prepare, tmp_path, task, kind):
    dropout = 0.0 if kind in ("pissa", "olora", "corda") else 0.1
    context, rows = prepare(task, adapter=kind, lora_dropout=dropout, save_every_s=0)
    whole = fit(context, rows, seed=0, folder=tmp_path / "whole", run="whole")

    def interrupt(event):
        if event.kind == "save" and event.step == 5:  # AdaLoRA has pruned, and gone on
            raise StopError

    with pytest.raises(StopError):
        fit(replace(context, on_event=interrupt), rows, seed=0, folder=tmp_path / "cut", run="cut")
    resumed = fit(context, rows, seed=0, folder=tmp_path / "cut", run="cut")
    for name in ("whole", "cut"):
        save_adapter({"whole": whole, "cut": resumed}[name].model, tmp_path / f"{name}-adapter")
    files = [path.name for path in (tmp_path / "whole-adapter").iterdir() if path.is_file()]
    assert any(name.endswith(".safetensors") for name in files)
    for name in files:
        assert (tmp_path / "whole-adapter" / name).read_bytes() == (tmp_path / "cut-adapter" / name).read_bytes()
    expected = read_logits(context, whole.model, rows)
    assert not torch.allclose(expected, read_logits(context, build_model(context, seed=0, rows=rows), rows), atol=1e-3)
    read_back = read_logits(context, load_trained_model(context, tmp_path / "whole-adapter"), rows)
    torch.testing.assert_close(read_back, expected, rtol=1e-4, atol=1e-4)
    if kind in NOT_MERGED:
        with pytest.raises(SettingsError, match="leave merge out"):
            check_adapter(context.settings, task, is_merged=True)
    else:
        merged = merge_adapter(whole.model)
        torch.testing.assert_close(read_logits(context, merged, rows), expected, rtol=1e-3, atol=1e-3)


def test_half_of_the_layers_stand_still_and_the_next_step_moves_them(prepare):
    from thresher.trainer.engine.adapters.updates import build_updates

    context, rows = prepare(adapter="half")
    model = build_model(context, seed=0)
    parameters = get_trainable_parameters(model)
    updates = build_updates(model, parameters, context.settings, seed=3)
    layers = {name.split(".lora_")[0] for name in parameters}
    stood = dict.fromkeys(layers, 0)
    for step in range(10):
        for name in updates.list_standing(step):
            stood[name] += 1
        assert len(updates.list_standing(step)) == len(layers) // 2
    assert set(stood.values()) == {5}
    for value in parameters.values():
        value.grad = torch.ones_like(value)
    updates.change_gradients(0)
    still = {name.split(".lora_")[0] for name, value in parameters.items() if value.grad is None}
    assert still == updates.list_standing(0)


def test_lora_fa_takes_the_projection_of_the_full_gradient(prepare):
    """s dB A must be G A^T (A A^T)^-1 A, with G the gradient of the weights themselves."""
    from thresher.trainer.engine.adapters.updates import build_updates

    context, rows = prepare(adapter="lorafa")
    model = build_model(context, seed=0)
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    layer.base_layer.weight.requires_grad_(True)
    ids = torch.tensor([rows[3].input_ids])
    model(input_ids=ids, labels=ids).loss.backward()
    full = layer.base_layer.weight.grad.double()
    parameters = {name: p for name, p in get_trainable_parameters(model).items() if "base_layer" not in name}
    assert all(".lora_B." in name for name in parameters)
    build_updates(model, parameters, context.settings, seed=0).change_gradients(0)
    a = layer.lora_A["default"].weight.detach().double()
    step = layer.scaling["default"] * layer.lora_B["default"].weight.grad.double() @ a
    torch.testing.assert_close(step, full @ torch.linalg.pinv(a) @ a, rtol=1e-3, atol=1e-7)


def test_adalora_prunes_to_its_budget_and_needs_its_importances(prepare, tmp_path, monkeypatch):
    context, rows = prepare(adapter="adalora", max_steps=12, save_every_s=0)
    ranks = lambda model: model.peft_config["default"].rank_pattern  # noqa: E731
    whole = fit(context, rows, seed=0, folder=tmp_path / "whole", run="whole")
    kept = ranks(whole.model)
    assert sum(sum(each) for each in kept.values()) <= 8 * len(kept)
    assert len({sum(each) for each in kept.values()}) > 1  # ranks differ between layers

    def interrupt(event):
        if event.kind == "save" and event.step == 3:
            raise StopError

    with pytest.raises(StopError):
        fit(replace(context, on_event=interrupt), rows, seed=0, folder=tmp_path / "cut", run="cut")
    # forgotten, as peft would
    monkeypatch.setattr(FallingRanks, "set_state", lambda self, state: None)
    forgetful = fit(context, rows, seed=0, folder=tmp_path / "cut", run="cut")
    assert ranks(forgetful.model) != kept


def test_layers_are_chosen_by_range_and_by_fisher_information(prepare):
    context, rows = prepare(lora_layers="1")
    names = get_trainable_parameters(build_model(context, seed=0))
    assert {re.search(r"layers\.(\d)", name)[1] for name in names} == {"1"}
    fisher, _ = prepare(lora_layers="fisher")
    names = get_trainable_parameters(build_model(fisher, seed=0, rows=rows))
    kept = {re.search(r"layers\.(\d)", name)[1] for name in names}
    base = build_model(context, seed=0).unload().float().requires_grad_(True)
    totals = {0: 0.0, 1: 0.0}
    for row in rows:  # a plain loop as reference
        base.zero_grad()
        ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
        logits = base(input_ids=ids).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum").backward()
        for name, value in base.named_parameters():
            match = re.search(r"layers\.(\d).*proj", name)
            if match:
                totals[int(match[1])] += float(value.grad.square().sum())
    assert kept == {str(max(totals, key=totals.get))}
    with pytest.raises(InputError, match=r"layers of the model, which are 0-1, got '1-7'"):
        build_model(prepare(lora_layers="1-7")[0], seed=0)
    flat = SimpleNamespace(named_modules=lambda: [("head", torch.nn.Linear(2, 2))])
    with pytest.raises(InputError, match="numbered layers"):
        list_left_out(flat, "fisher", rows, token_loss, device="cpu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adapter": "pissa", "lora_dropout": 0.1}, "lora_dropout to 0"),
        ({"adapter": "pissa", "dora": True}, "leave dora out"),
        ({"adapter": "vera", "rslora": True}, "leave rslora out"),
        ({"adapter": "orthogonal", "lora_rank": 3}, "set lora_rank to 4"),
        ({"adapter": "prompt", "packing": True}, "leave packing out"),
        ({"adapter": "full", "lora_layers": "0"}, "leave lora_layers out"),
        ({"adapter": "prompt", "lora_targets": ("q_proj",)}, "leave lora_targets out"),
        ({"adapter": "full", "load_in_4bit": True}, "leave load_in_4bit out"),
        ({"adapter": "corda", "load_in_4bit": True}, "leave load_in_4bit out"),
        ({"adapter": "adalora", "early_stopping_patience": 2}, "leave early_stopping_patience out"),
        ({"adapter": "prefix", "gradient_checkpointing": True}, "leave it out"),
    ],
)
def test_what_a_kind_cannot_do_is_refused_in_one_sentence(options, said):
    with pytest.raises(SettingsError, match=f"adapter '{options['adapter']}'.*{re.escape(said)}"):
        check_adapter(TrainSettings(**options), "sft")
    if set(options) & {"lora_dropout", "dora", "rslora", "lora_rank", "lora_layers", "lora_targets"}:
        fit_settings(TrainSettings(**options), "sft")  # a search leaves out what does not fit
    with pytest.raises(SettingsError, match="take prompt"):
        check_adapter(TrainSettings(adapter="prefix"), "classification")
    with pytest.raises(SettingsError, match="leave scale out"):
        check_adapter(TrainSettings(adapter="vera"), "sft", scale="auto")
    with pytest.raises(SettingsError, match="layers as 8-15"):
        TrainSettings(lora_layers="last")


def test_the_rank_of_a_continued_vera_is_its_own(prepare, tmp_path):
    context, rows = prepare(adapter="vera", lora_rank=2)
    save_adapter(fit(context, rows, seed=0, folder=tmp_path / "run", run="run").model, tmp_path / "adapter")
    later, _ = prepare(start_from=tmp_path / "adapter")
    assert (later.settings.adapter, later.settings.lora_rank) == ("vera", 2)
    with pytest.raises(SettingsError, match="lora_rank is that of the adapter, 2, got 4"):
        prepare(start_from=tmp_path / "adapter", lora_rank=4)


def test_training_goes_on_from_an_adapter(prepare, tmp_path):
    context, rows = prepare(lora_rank=5)
    first = fit(context, rows, seed=0, folder=tmp_path / "run", run="run")
    save_adapter(first.model, tmp_path / "adapter")
    later, _ = prepare(start_from=tmp_path / "adapter")
    assert later.settings.lora_rank == 5
    assert later.identity() != context.identity()
    model = build_model(later, seed=1)
    torch.testing.assert_close(read_logits(later, model, rows), read_logits(context, first.model, rows))
    assert get_trainable_parameters(model).keys() == get_trainable_parameters(first.model).keys()
    for options, said in (
        ({"lora_rank": 6}, "lora_rank is that of the adapter, 5, got 6"),
        ({"lora_rank": 8}, "lora_rank is that of the adapter, 5, got 8"),  # the default
        ({"adapter": "pissa"}, "leave adapter out"),
        ({"lora_layers": "0"}, "leave lora_targets and lora_layers out"),
    ):
        with pytest.raises(SettingsError, match=said):
            prepare(**options, start_from=tmp_path / "adapter")
    with pytest.raises(InputError, match="adapts '.*tiny-llama.*', got model"):
        prepare("classification", start_from=tmp_path / "adapter")
    with pytest.raises(InputError, match="found no adapter_config.json"):
        prepare(start_from=tmp_path)
    no_rank = '{"base_model_name_or_path": "a", "peft_type": "LORA"}'
    for content, absent in (("[]", "base_model_name_or_path, peft_type"), (no_rank, "r, lora_alpha")):
        (tmp_path / "adapter_config.json").write_text(content)
        with pytest.raises(InputError, match=f"must hold {absent}, found none"):
            prepare(start_from=tmp_path)
