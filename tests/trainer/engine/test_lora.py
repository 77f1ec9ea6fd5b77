"""Adapters on models of every kind: where they go, and that peft reads back what was trained."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from thresher.errors import InputError
from thresher.models.causal_lm.base_model import BaseModel
from thresher.trainer.engine.load_model import load_model, refuse_quantized
from thresher.trainer.engine.lora import attach_adapter, get_trainable_parameters, load_adapter, save_adapter
from thresher.trainer.settings import TrainSettings

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
BLOCKS = {**SIZES, "intermediate_size": 64, "num_attention_heads": 4, "max_position_embeddings": 64}
HYBRID = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_d_ssm": 64, "mamba_chunk_size": 16}
LANGUAGE_MODELS = {
    "Llama4": (  # its router counts as a linear layer, and gives two tensors
        "Llama4TextConfig",
        {**BLOCKS, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2},
        {"router"},
    ),
    "Mamba": ("MambaConfig", {**SIZES, "state_size": 8}, {"out_proj", "dt_proj"}),  # not called
    "FalconH1": ("FalconH1Config", {**BLOCKS, "num_key_value_heads": 2, **HYBRID}, {"out_proj"}),
}
CLASSIFIER = TrainSettings(lora_rank=4, precision="fp32").resolved("classification")
ENCODERS = {  # whose checkpoints of the body alone lack layers before the head
    "ModernBert": {**BLOCKS, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "XLM": {"vocab_size": 100, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    "DistilBert": {"vocab_size": 100, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "Roberta": BLOCKS,
}


def make_base(folder):
    return BaseModel(name=str(folder), folder=Path(folder), fingerprint="", max_positions=None)


def move_weights(model):
    """Change every trained matrix, as training would: a fresh adapter's zeros hide losses."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        for parameter in get_trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def logits(model):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([[5, 9, 30, 61, 7, 2]])).logits


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_auto_targets_leave_out_what_cannot_be_adapted(tmp_path, name):
    config, sizes, left_out = LANGUAGE_MODELS[name]
    settings = TrainSettings(lora_rank=4).resolved("sft")

    def build():
        torch.manual_seed(0)
        return getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, config)(**sizes)).eval()

    with torch.random.fork_rng():
        model = attach_adapter(build(), settings, task="sft", base=make_base(tmp_path))
        assert not {part for name in get_trainable_parameters(model) for part in name.split(".")} & left_out
        model.train()
        model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        assert all(parameter.grad is not None for parameter in get_trainable_parameters(model).values())
        expected = logits(move_weights(model))
        save_adapter(model, tmp_path / "adapter")
        torch.testing.assert_close(logits(load_adapter(build(), tmp_path / "adapter")), expected)
        torch.testing.assert_close(logits(model.merge_and_unload()), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_classifier_is_the_same_when_its_adapter_is_read_back(tmp_path, name):
    """What the checkpoint lacks is initialized anew at each loading, and must be in the adapter."""
    base = make_base(tmp_path / "base")

    def load():
        return load_model(base, task="classification", settings=CLASSIFIER, pad_id=0, labels="abc")

    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**ENCODERS[name])).save_pretrained(
            base.folder
        )
        loaded = load()
        model = move_weights(
            attach_adapter(loaded.model, CLASSIFIER, task="classification", base=base, new_layers=loaded.new_layers)
        )
        save_adapter(model, tmp_path / "adapter")
        torch.manual_seed(1)
        torch.testing.assert_close(logits(load_adapter(load().model, tmp_path / "adapter")), logits(model))


def test_a_head_of_other_labels_is_new_and_saved_whatever_its_name(tmp_path):
    base = make_base(tmp_path / "base")
    sizes = {"vocab_size": 100, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64, "num_labels": 7}
    with torch.random.fork_rng():
        transformers.XLNetForSequenceClassification(transformers.XLNetConfig(**sizes)).save_pretrained(base.folder)
        loaded = load_model(base, task="classification", settings=CLASSIFIER, pad_id=0, labels="abc")
    assert loaded.new_layers == ("logits_proj",)


def test_only_what_reads_text_is_adapted_in_a_model_of_images_too(tmp_path):
    """Matrices that no text moves get no gradient, which ends a run of several processes."""
    text = {**BLOCKS, "num_key_value_heads": 2, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}
    seen = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.Gemma3Config(text_config=text, vision_config={**seen, "image_size": 28, "patch_size": 14})
    with torch.random.fork_rng():
        model = transformers.Gemma3ForConditionalGeneration(config)
        attached = attach_adapter(model, TrainSettings().resolved("sft"), task="sft", base=make_base(tmp_path))
    names = list(get_trainable_parameters(attached))
    assert len(names) == 2 * 2 * 7
    assert all(".language_model." in name for name in names)


def test_an_encoder_whose_body_is_not_whole_is_refused(tiny_bert, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny_bert / "model.safetensors")
    lost = next(name for name in weights if name.endswith("layer.1.output.dense.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny_bert / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"below its head must be complete, missing are .*layer.1.output.dense.weight"):
        load_model(make_base(tmp_path), task="classification", settings=TrainSettings(), pad_id=0, labels="ab")


def test_a_target_that_is_no_layer_is_refused_beside_one_that_is(tiny_llama):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    settings = TrainSettings(lora_targets=("q_proj", "v_prj")).resolved("sft")
    with pytest.raises(InputError, match=r"must name layers of the model, got v_prj; its linear layers are down_proj"):
        attach_adapter(model, settings, task="sft", base=make_base(tiny_llama))


def test_layers_that_peft_does_not_adapt_are_one_sentence(tiny_llama):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    settings = TrainSettings(lora_targets=("input_layernorm",)).resolved("sft")
    with pytest.raises(
        InputError, match="LoRA cannot be put on input_layernorm .*name others as lora_targets"
    ) as raised:
        attach_adapter(model, settings, task="sft", base=make_base(tiny_llama))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("method", ["awq", "compressed-tensors", "fp8", "gptq", "bitsandbytes", "mxfp4"])
def test_weights_of_few_bits_are_refused_whatever_packed_them(tmp_path, method):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    with pytest.raises(
        InputError, match=f"needs weights that are not quantized, found '{method}'; take the checkpoint"
    ):
        refuse_quantized(make_base(tmp_path))


def test_an_adapter_names_the_folder_of_its_base_so_that_it_is_found_from_anywhere(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_llama.parent)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    base = make_base(tiny_llama.name)
    adapted = attach_adapter(model, TrainSettings().resolved("sft"), task="sft", base=base)
    save_adapter(adapted, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_bytes())["base_model_name_or_path"] == str(tiny_llama)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_in_bfloat16_layers_read_what_they_are_given_and_learn_the_same(tiny_llama, precision):
    """Autocast rounds what a layer reads: a float32 copy before it changes the time alone."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = make_base(tiny_llama)
    ids = torch.tensor([[5, 9, 30, 61, 7, 2]])

    def learn(is_copied):
        torch.manual_seed(0)
        settings = TrainSettings(precision=precision).resolved("sft")
        model = load_model(base, task="sft", settings=settings, pad_id=0).model
        adapted = move_weights(attach_adapter(model, settings, task="sft", base=base)).train()
        tuned = [part for part in adapted.modules() if isinstance(part, BaseTunerLayer)]
        assert {part.cast_input_dtype_enabled for part in tuned} == {precision == "fp32"}
        for part in tuned:
            part.cast_input_dtype_enabled = is_copied or part.cast_input_dtype_enabled
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            adapted(input_ids=ids, labels=ids).loss.backward()
        return {name: each.grad for name, each in get_trainable_parameters(adapted).items()}

    copied, plain = learn(True), learn(False)
    assert all(gradient.dtype == torch.float32 for gradient in plain.values())
    for name, gradient in copied.items():
        torch.testing.assert_close(plain[name], gradient, atol=0, rtol=0)
