"""A merged model has the logits of its adapter, also where output layer and embedding are tied."""

from __future__ import annotations

import pytest
import torch

from tests.models.tiny_architectures import LLAMA4
from thresher.trainer.engine.lora import merge_adapter

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:Model has `tie_word_embeddings=True`:UserWarning"
)

IDS = {"vocab_size": 96, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
WIDE = {**IDS, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4}
GROUPED = {**WIDE, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2}
MODELS = {
    "Llama": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": {**GROUPED, "head_dim": 8},
    "Gemma2": {**GROUPED, "head_dim": 8},
    "GPTNeoX": {**WIDE, "max_position_embeddings": 64, "initializer_range": 0.2},
    "GPT2": {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "GPTNeo": {
        **IDS,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    },
    "OpenAIGPT": {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2},
    "Llama4": {**GROUPED, **LLAMA4},
    "Mpt": {**IDS, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "initializer_range": 0.2},
    "Lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "OPT": {**IDS, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "init_std": 0.2},
}


def make_adapted(name, targets, *, is_tied=True):
    import transformers

    settings = MODELS[name]
    kind = f"{name}LMHeadModel" if name in ("GPT2", "OpenAIGPT") else f"{name}ForCausalLM"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, "Llama4TextConfig" if name == "Llama4" else f"{name}Config")(
            **settings, tie_word_embeddings=is_tied
        )
        model = getattr(transformers, kind)(config).eval()
        ends = {"output": model.get_output_embeddings(), "input": model.get_input_embeddings()}
        names = {end: next(name for name, part in model.named_modules() if part is ends[end]) for end in ends}
        adapted = attach(model, [names.get(target, target) for target in targets])
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:  # B starts at 0, and would hide everything
                torch.nn.init.normal_(parameter, std=0.3)
    return adapted.eval()


def attach(model, targets):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets))


def compute_logits(model):
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("part", ["output", "input", "both"])
@pytest.mark.parametrize("name", MODELS)
def test_a_merged_tied_model_has_the_logits_of_the_adapter(name, part, tmp_path):
    import transformers

    adapted = make_adapted(name, ["output", "input"] if part == "both" else [part])
    expected = compute_logits(adapted)
    merged = merge_adapter(adapted)
    torch.testing.assert_close(compute_logits(merged), expected, rtol=1e-5, atol=1e-5)
    merged.save_pretrained(tmp_path)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(compute_logits(read), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_tied", [True, False])
def test_other_layers_leave_the_ends_as_they_are(is_tied, tmp_path):
    import transformers

    adapted = make_adapted("Llama", ["q_proj"], is_tied=is_tied)
    expected = compute_logits(adapted)
    merged = merge_adapter(adapted)
    assert merged.config.tie_word_embeddings is is_tied
    merged.save_pretrained(tmp_path)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(compute_logits(read), expected, rtol=1e-5, atol=1e-5)
