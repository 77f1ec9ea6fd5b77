"""Starts of low-rank matrices: what they are by other ways, and that the base stays as it was."""

import copy
import warnings

import numpy as np
import pytest
import torch

from thresher.dataset import load
from thresher.errors import InputError
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.adapters.starts import set_start
from thresher.trainer.engine.fit import build_model, load_untouched_model
from thresher.trainer.settings import TrainSettings


@pytest.fixture(scope="module")
def started(tiny_llama, question_rows):
    """Return a function from a kind to the context, its rows, the base and the fresh model."""
    rows = load(question_rows)

    def build(kind, **options):
        settings = TrainSettings(adapter=kind, precision="fp32", **{"lora_rank": 4, **options})
        context = resolve_run(rows, model=tiny_llama, settings=settings, seed=0)
        examples = context.tokenize(rows).rows
        model = build_model(context, seed=0, rows=examples)
        return context, examples, load_untouched_model(context), model.eval()

    return build


def test_a_prefix_starts_as_the_first_tokens_of_the_rows_before_each_row(started):
    _, rows, base, model = started("prefix", virtual_tokens=12)
    text, row = [token for row in rows for token in row.input_ids][:12], rows[3].input_ids
    with torch.no_grad():
        expected = base(input_ids=torch.tensor([text + row])).logits[0, 12:]
        found = model(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=int)).logits[0]
    torch.testing.assert_close(found[-len(row) :], expected, atol=1e-4, rtol=1e-4)


def get_layer(model):
    return model.base_model.model.model.layers[0].self_attn.q_proj


def get_matrices(layer):
    a, b = (part["default"].weight.detach().double().numpy() for part in (layer.lora_A, layer.lora_B))
    return a, b, layer.get_base_layer().weight.detach().double().numpy(), layer.scaling["default"]


@pytest.mark.parametrize("kind", ["pissa", "olora", "orthogonal", "eva", "corda"])
def test_a_fresh_adapter_leaves_the_base_as_it_was(started, kind):
    _, rows, base, model = started(kind)
    ids = torch.tensor([rows[0].input_ids])
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=ids).logits, base(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    own = dict(base.named_parameters())
    for name, value in model.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if plain in own:
            assert torch.equal(own[plain], value)
    assert get_layer(model).lora_A["default"].weight.any()


def test_pissa_starts_with_the_truncated_svd(started):
    a, b, weight, scale = get_matrices(get_layer(started("pissa")[3]))
    u, s, vh = np.linalg.svd(weight)
    np.testing.assert_allclose(scale * b @ a, u[:, :4] * s[:4] @ vh[:4], atol=1e-5)


def test_olora_starts_with_the_first_columns_of_a_qr(started):
    a, b, weight, _ = get_matrices(get_layer(started("olora")[3]))
    q, r = np.linalg.qr(weight)
    np.testing.assert_allclose(b @ a, q[:, :4] @ r[:4], atol=1e-5)


def read_inputs(base, rows):
    """Return all inputs of the first projection, by a plain hook: (t, n_in)."""
    inputs = []
    hook = base.model.layers[0].self_attn.q_proj.register_forward_hook(lambda _, x, __: inputs.append(x[0][0]))
    with torch.inference_mode():
        for row in rows:
            base(input_ids=torch.tensor([row.input_ids]))
    hook.remove()
    return torch.cat(inputs).double().numpy()


def test_eva_starts_with_the_directions_of_the_inputs(started):
    _, rows, base, model = started("eva")
    a, b, _, _ = get_matrices(get_layer(model))
    _, _, vh = np.linalg.svd(read_inputs(base, rows), full_matrices=False)
    np.testing.assert_allclose(np.abs(a @ vh[:4].T), np.eye(4), atol=1e-3)
    assert not b.any()


def test_corda_starts_as_that_of_peft(started):
    """peft scales each row by its largest entry, so that one row alone gives the same."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda

    context, rows, base, _ = started("corda")
    model = build_model(context, seed=0, rows=rows[:1]).eval()
    a, b, _, _ = get_matrices(get_layer(model))
    peer = copy.deepcopy(base)
    config = LoraConfig(
        init_lora_weights="corda", r=4, lora_alpha=8, target_modules=["q_proj"], corda_config=CordaConfig()
    )
    ids = torch.tensor([rows[0].input_ids])
    preprocess_corda(peer, config, run_model=lambda: peer(input_ids=ids))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, for what peft calls
        their_a, their_b, _, _ = get_matrices(get_layer(get_peft_model(peer, config)))
    np.testing.assert_allclose(b @ a, their_b @ their_a, rtol=1e-2, atol=1e-4)


def test_the_matrices_of_corda_are_equally_large_however_many_rows_were_read(started):
    """Split by singular values that grow with the rows, they would make the first steps huge."""
    context, rows, _, _ = started("corda")
    for n in (1, len(rows)):
        a, b, _, _ = get_matrices(get_layer(build_model(context, seed=0, rows=rows[:n]).eval()))
        np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0), rtol=1e-4)


def test_a_rank_beyond_the_layers_is_refused(started):
    with pytest.raises(InputError, match=r"side of at least its rank 40.*lower lora_rank"):
        started("pissa", lora_rank=40)
    _, _, _, model = started("lora")
    set_start(model, "lora", [], device="cpu")  # others are left alone
