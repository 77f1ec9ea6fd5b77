"""Models that do not say that they cannot be packed or adapted."""

import pytest
import torch
import transformers

from thresher.errors import InputError, SettingsError
from thresher.models.causal_lm.base_model import BaseModel
from thresher.trainer.engine.batches import pad_rows
from thresher.trainer.engine.preflight import try_classifier, try_language_model
from thresher.trainer.engine.tokenization import Example

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
BLOCKS = {**SIZES, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
HYBRID = {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}
MODELS = {
    "Llama": BLOCKS,
    "Bamba": {**BLOCKS, **HYBRID},  # a state goes on from row to row
    "Bloom": {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 4},  # has no such mask
}


def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**MODELS[name], initializer_range=0.2)
        return getattr(transformers, f"{name}ForCausalLM")(config)


def try_model(model, *, is_packed):
    base = BaseModel(name="m", folder=None, fingerprint="", max_positions=None)
    try_language_model(model, base=base, device="cpu", is_packed=is_packed)


@pytest.mark.parametrize("name", MODELS)
def test_packing_is_refused_where_rows_do_not_stay_apart_and_nothing_else_is(name):
    model = build(name)
    try_model(model, is_packed=False)
    if name == "Llama":
        try_model(model, is_packed=True)
        return
    with pytest.raises(SettingsError, match=f"packing needs a model that keeps rows apart, got {name.lower()}"):
        try_model(model, is_packed=True)


@pytest.mark.parametrize("name", ["Bert", "XLNet"])
def test_a_classifier_that_reads_padding_is_refused(name):
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64} if name == "XLNet" else SIZES
    sizes = {**sizes, "vocab_size": 100} | ({"num_attention_heads": 4} if name == "Bert" else {})
    rows = [Example("", list(range(5, 5 + n)), [0]) for n in (4, 9)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForSequenceClassification")(
            getattr(transformers, f"{name}Config")(**sizes)
        )
    base = BaseModel(name="m", folder=None, fingerprint="", max_positions=None)
    arguments = {"base": base, "collate": lambda rows: pad_rows(rows, pad_id=0), "device": "cpu"}
    if name == "Bert":
        try_classifier(model, rows, **arguments)
        return
    with pytest.raises(InputError, match="whose answer does not depend on padding, and that of 'xlnet' does"):
        try_classifier(model, rows, **arguments)


def test_a_model_that_breaks_below_its_adapter_is_one_sentence():
    class Two(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x), None

    model = build("Llama")
    model.model.layers[0].mlp.up_proj = Two(32, 64)
    with pytest.raises(
        InputError, match="model 'm': does not run with LoRA on its layers .*name others as lora_targets"
    ):
        try_model(model, is_packed=False)
