"""The probe for padding looks at the architecture, not at how an adapter's products round."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from thresher.models.generation.decoding_loop import ignores_padding


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about transformers
def test_adapters_in_the_layers_are_left_out(tiny_llama):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_llama), LoraConfig(target_modules=["q_proj"])
    ).eval()
    adapted = model.get_base_model().model.layers[0].self_attn.q_proj
    seen = []
    adapted.register_forward_hook(lambda module, *_: seen.append(module.disable_adapters))
    assert ignores_padding(model, torch.device("cpu"))
    assert seen
    assert all(seen)
    # and it is there again
    assert not adapted.disable_adapters
