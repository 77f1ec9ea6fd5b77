"""Any causal language model, any adapter on it, against plain forwards of one row at a time."""

import json
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest

import thresher as th
from tests.models.tiny_architectures import LLAMA4
from thresher.errors import InputError
from thresher.features import compute, make_context
from thresher.features.gradients.per_example import AdapterState, RowGradients, make_sketch
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import TokenRow, score_rows
from thresher.models.causal_lm.shared_prefix import prepend_prefix, score_pairs
from thresher.models.causal_lm.tokenized_rows import PROBLEMS
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import user_turn
from thresher.models.generation.local import LocalGenerator

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

VOCABULARY = 320
IDS = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
WIDE = {**IDS, "hidden_size": 32, "num_hidden_layers": 2}
SMALL = {**WIDE, "intermediate_size": 64, "num_attention_heads": 4, "max_position_embeddings": 256}
GROUPED = {**SMALL, "num_key_value_heads": 2, "initializer_range": 0.2}
GPT = {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}
PARTS = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
MODELS = {
    "GPTNeo": {  # a window that it counts in places of the cache
        **WIDE,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 16,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
    },
    "OpenAIGPT": GPT,  # keeps no keys and values
    "Llama4": {**GROUPED, **LLAMA4},  # its body has another name than it says
    "OPT": {  # its last hidden states are narrower than it says
        **{key: value for key, value in SMALL.items() if key != "intermediate_size"},
        "ffn_dim": 64,
        "word_embed_proj_dim": 16,
        "init_std": 0.2,
    },
    "Mpt": {**IDS, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 100, "initializer_range": 0.2},
    "Rwkv": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 2, "bos_token_id": 1},
    "Lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
}
CLASSES = {
    "OpenAIGPT": ("OpenAIGPTLMHeadModel", "OpenAIGPTConfig"),
    "Llama4": ("Llama4ForCausalLM", "Llama4TextConfig"),
}
MEASURED = ("loss", "loss_unconditional", "n_response_tokens", "hidden_state")
ROWS = [("add 2 and 3:", "5"), ("fox", "jumps over the lazy dog " * 4), ("é 数学 😀", "ok"), ("what is the", "x " * 20)]


def save(folder, tokens, model, config, settings):
    """Write a random model beside the tokenizer of the tiny Llama (byte-level, ChatML, no BOS)."""
    import torch
    import transformers

    shutil.copytree(tokens, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"), dirs_exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, model)(getattr(transformers, config)(**settings))
        if model.startswith("Rwkv"):  # its own start would hide what comes before a token
            for parameter in made.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tiny_llama, tmp_path_factory):
    names = CLASSES.get(request.param, (f"{request.param}ForCausalLM", f"{request.param}Config"))
    return save(tmp_path_factory.mktemp(request.param), tiny_llama, *names, MODELS[request.param])


@pytest.fixture(scope="module")
def plain(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def context(folder, **settings):
    return make_context(**{"model": str(folder), "device": "cpu", "cache": None, **settings})


def log_p(model, ids):
    import torch

    with torch.no_grad():
        return model(torch.tensor([list(ids)]), use_cache=False).logits[0].double().log_softmax(-1).numpy()


def measured_by_hand(plain, prompt, response):
    """Return loss, loss_unconditional, tokens and the mean hidden state, from this row alone."""
    import torch

    model, tokenizer = plain
    head = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    end = len(f"{head}{response}<|im_end|>")
    encoded = tokenizer(f"{head}{response}<|im_end|>\n", add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    at = [i for i, (start, stop) in enumerate(encoded["offset_mapping"]) if stop > len(head) and start < end]
    alone = [tokenizer.eos_token_id, *(ids[i] for i in at)]
    given, free = log_p(model, ids), log_p(model, alone)
    body = model.model if model.base_model is model else model.base_model
    with torch.no_grad():
        hidden = body(torch.tensor([ids]), use_cache=False)[0][0].double().numpy()
    mean = np.arange(1, len(ids) + 1) @ hidden
    return (
        -np.mean([given[i - 1, ids[i]] for i in at]),
        -np.mean([free[i - 1, alone[i]] for i in range(1, len(alone))]),
        len(at),
        mean / np.linalg.norm(mean),
    )


@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_features_equal_those_of_each_row_alone(folder, plain, batch_tokens):
    rows = [{"prompt": prompt, "completion": response} for prompt, response in ROWS]
    lost = {"prompt": "x" * 600, "completion": "behind the limit"}
    found = compute(th.load([*rows[::-1], lost]), set(MEASURED), context(folder, batch_tokens=batch_tokens))
    for i, row in enumerate(ROWS[::-1]):
        for name, wanted in zip(MEASURED, measured_by_hand(plain, *row), strict=True):
            np.testing.assert_allclose(found[name][i], wanted, atol=1e-4, err_msg=name)
    has_limit = "rwkv" not in plain[0].config.model_type
    assert found.missing["hidden_state"].to_list() == [None] * 4 + ([PROBLEMS[1]] if has_limit else [None])


def test_pairs_equal_each_row_behind_its_whole_prefix(folder, plain):
    rng = np.random.default_rng(0)
    prefixes = [rng.integers(0, VOCABULARY, n).astype(np.int32) for n in (1, 50, 17)]
    rows = [TokenRow(rng.integers(0, VOCABULARY, n).astype(np.int32), np.arange(n) % 2 == 0) for n in (5, 12, 1)]
    pairs = np.array([(p, r) for p in range(3) for r in range(3)])
    lm = LanguageModel(str(folder), device="cpu")
    for found in score_pairs(lm, prefixes, rows, pairs, batch_tokens=1000):
        for pair, values in zip(found.positions, found.log_probs, strict=True):
            whole = prepend_prefix(prefixes[pairs[pair, 0]], rows[pairs[pair, 1]])
            at = np.flatnonzero(whole.is_scored)
            wanted = log_p(plain[0], whole.ids)[at - 1, whole.ids[at]]
            np.testing.assert_allclose(values, wanted, atol=1e-4)


def test_answers_of_a_batch_are_those_of_each_prompt_alone(folder, plain):
    model, tokenizer = plain
    here = context(folder)
    texts = ("the fox", "the dog", "x", "what is the capital")
    conversations = [user_turn(text) for text in texts]
    who = LocalGenerator(here)
    for found, text in zip(
        who.generate(conversations, Decoding(max_new_tokens=6), stage="answers", context=here), texts, strict=True
    ):
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        new = []
        while len(new) < 6 and new[-1:] != [2]:
            new.append(int(log_p(model, ids + new)[-1].argmax()))
        assert found[0].text == tokenizer.decode([each for each in new if each != 2], skip_special_tokens=True).strip()
    drawn = Decoding(n_samples=2, temperature=1.0, max_new_tokens=5)
    together = who.generate(conversations, drawn, stage="answers", context=here)
    assert together == [
        who.generate([conversation], drawn, stage="answers", context=here)[0] for conversation in conversations
    ]
    single = replace(drawn, n_samples=1)
    assert [found[0] for found in together] == [
        who.generate([conversation], single, stage="answers", context=here)[0][0] for conversation in conversations
    ]


OTHERS = {
    "XLNet": (
        "XLNetLMHeadModel",
        {**IDS, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
        "a token sees what follows",
    ),
    "Gemma3Text": (
        "Gemma3ForCausalLM",
        {**GROUPED, "head_dim": 8, "use_bidirectional_attention": True},
        "a token sees what follows",
    ),
    "Pegasus": ("PegasusForConditionalGeneration", {**IDS, **PARTS, **HEADS}, "'pegasus' is an encoder with a decoder"),
    "GPT2": ("GPT2ForSequenceClassification", GPT, "'GPT2ForSequenceClassification' was trained for another task"),
    "Llama": ("LlamaModel", GROUPED, "weights of a causal language model must be complete, missing are lm_head.weight"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_whole_causal_language_model_is_refused(tiny_llama, tmp_path, name):
    model, settings, message = OTHERS[name]
    save(tmp_path / "model", tiny_llama, model, f"{name}Config", settings)
    with pytest.raises(InputError, match=message):
        LanguageModel(str(tmp_path / "model"), device="cpu").model  # noqa: B018


def set_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def without_a_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    set_config(folder, model_type="phi")  # for which transformers makes up one without words


BROKEN = {
    "weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 40),
        "model.safetensors must be a whole",
    ),
    "json": (lambda folder: (folder / "config.json").write_text("{"), "config.json must be JSON"),
    "list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json must be an object, got a list"),
    "type": (lambda folder: set_config(folder, hidden_size="many"), "hidden_size"),
    "limit": (lambda folder: set_config(folder, max_position_embeddings="9"), "must be a whole number.*got '9'"),
    "package": (
        lambda folder: set_config(folder, quantization_config={"quant_method": "gptq", "bits": 4}),
        "cannot be loaded for scoring",
    ),
    "tokenizer": (without_a_tokenizer, "has no tokenizer"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_one_sentence(tiny_llama, tmp_path, name):
    damage, message = BROKEN[name]
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        compute(th.load([{"prompt": "a", "completion": "b"}]), {"loss"}, context(folder))
    assert "\n" not in str(caught.value)


def test_a_token_that_the_weights_do_not_have_is_refused_and_as_padding_it_does_no_harm(tiny_llama, tmp_path):
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<|{i}|>" for i in range(VOCABULARY)])
    tokenizer.pad_token = f"<|{VOCABULARY - 1}|>"
    tokenizer.save_pretrained(folder)
    here = context(folder)
    with pytest.raises(InputError, match=r"token ids must be below 320.*tokenizer gave \d+ \('<\|319\|>'\)"):
        compute(th.load([{"prompt": "<|319|>", "completion": "b"}]), {"loss"}, here)
    conversations = [user_turn("the fox"), user_turn("x")]
    found = [
        LocalGenerator(context(each)).generate(conversations, Decoding(max_new_tokens=5), stage="answers", context=here)
        for each in (folder, tiny_llama)
    ]
    assert found[0] == found[1]


def test_responses_alone_are_refused_where_no_token_can_stand_before_them(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "eos_token": None}))
    rows = th.load([{"prompt": "a", "completion": "b"}])
    assert np.isfinite(compute(rows, {"loss"}, context(folder))["loss"]).all()
    with pytest.raises(InputError, match="a text must stand behind a begin- or end-of-sequence token"):
        compute(rows, {"loss_unconditional"}, context(folder))


def adapter(base, folder, *, n_tokens=None, **settings):
    """Write an adapter with random weights, and return the peft model it came from."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft: embeddings are saved with the adapter
        torch.manual_seed(1)
        if n_tokens is not None:
            model.resize_token_embeddings(n_tokens)
        config = LoraConfig(
            **{"task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear", "init_lora_weights": False} | settings
        )
        made = get_peft_model(model, config)
        made.peft_config["default"].base_model_name_or_path = str(base)
        made.save_pretrained(folder)
    return made.eval()


def losses(lm, row):
    (found,) = score_rows(lm, [row], batch_tokens=100)
    return found.log_probs[0]


@pytest.mark.parametrize(
    ("n_tokens", "settings"),
    [(330, {}), (300, {"modules_to_save": ["embed_tokens", "lm_head"]}), (None, {"modules_to_save": ["lm_head"]})],
)
def test_an_adapter_with_embeddings_of_its_own_is_scored_as_it_was_saved(tiny_llama, tmp_path, n_tokens, settings):
    made = adapter(tiny_llama, tmp_path, n_tokens=n_tokens, **settings)
    row = TokenRow(np.array([5, 299, 7, (n_tokens or 320) - 1], dtype=np.int32), np.arange(4) > 0)
    lm = LanguageModel(str(tmp_path), device="cpu")
    wanted = log_p(made, row.ids)[np.arange(3), row.ids[1:]]
    np.testing.assert_allclose(losses(lm, row), wanted, atol=1e-4)


def without_a_weight(folder):
    from safetensors.torch import load_file, save_file

    found = load_file(folder / "adapter_model.safetensors")
    del found[min(found)]
    save_file(found, folder / "adapter_model.safetensors")


UNFIT = {
    "weight": ({}, without_a_weight, "the adapter lacks weights"),
    "damaged": (
        {},
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"),
        "must be a whole safetensors",
    ),
    "pickle": (
        {},
        lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
        "weights must be adapter_model.safetensors, found none",
    ),
    "activated": ({"alora_invocation_tokens": [5, 6]}, None, "got an activated LoRA"),
    "classifier": ({"task_type": "SEQ_CLS"}, None, "got one of task type SEQ_CLS"),
    "list": ({}, lambda folder: (folder / "adapter_config.json").write_text("[]"), "must be an object, got a list"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_adapter_that_cannot_be_what_was_trained_is_refused(tiny_llama, tmp_path, name):
    settings, damage, message = UNFIT[name]
    folder = tmp_path / "adapter"
    adapter(tiny_llama, folder, target_modules=["q_proj"], **{"task_type": "CAUSAL_LM"})
    if settings:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | settings))
    if damage is not None:
        damage(folder)
    with pytest.raises(InputError, match=message):
        LanguageModel(str(folder), device="cpu").model  # noqa: B018


TRAINED = {
    "OPT": MODELS["OPT"],  # hands the tokens of all rows on in one
    # peft's matrices on experts and router are never called
    "Mixtral": {**GROUPED, "num_local_experts": 2},
    "HrmText": {  # runs its layers several times, at first without gradients
        **SMALL,
        "num_hidden_layers": 1,
        "head_dim": 8,
        "H_cycles": 2,
        "L_cycles": 3,
        "initializer_range": 0.2,
    },
}


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_of_a_batch_are_those_of_each_row_alone(tiny_llama, tmp_path, name):
    import torch

    dim = 24
    base = save(tmp_path / "base", tiny_llama, f"{name}ForCausalLM", f"{name}Config", TRAINED[name])
    made = adapter(base, tmp_path / "adapter")
    trained = {key: each for key, each in made.named_parameters() if each.requires_grad}
    weight = {key.removeprefix("base_model.model.").removesuffix(".weight"): each for key, each in trained.items()}
    zero = {key: torch.zeros_like(each) for key, each in weight.items()}
    state = AdapterState(weight=weight, first=zero, second=zero, step=0, rate=1.0)
    gradients = RowGradients(LanguageModel(str(tmp_path / "adapter"), device="cpu"), state, dim=dim, number=0)
    rng = np.random.default_rng(0)
    rows = [TokenRow(rng.integers(0, VOCABULARY, n).astype(np.int32), np.arange(n) > 1) for n in (9, 5, 7)]
    (found,) = gradients.compute_batches(rows, batch_tokens=1000, precondition=None)
    for i, sketch in zip(found.positions, found.values, strict=True):
        ids = torch.from_numpy(rows[i].ids.astype(np.int64))
        said = made(input_ids=ids[None, :-1], use_cache=False).logits[0].log_softmax(-1)
        loss = -said[torch.arange(1, len(ids) - 1), ids[2:]].mean()
        wanted = np.zeros(dim)
        for key, each in zip(weight, torch.autograd.grad(loss, list(weight.values()), allow_unused=True), strict=True):
            if each is not None:
                place, sign = make_sketch(key, each.numel(), dim=dim, number=0)
                np.add.at(wanted, place.numpy(), (each.flatten() * sign).double().numpy())
        np.testing.assert_allclose(sketch, wanted / np.linalg.norm(wanted), atol=1e-3)
