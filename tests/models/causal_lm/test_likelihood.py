"""The scoring engine against plain forwards of one row at a time, over differing architectures."""

import warnings

import numpy as np
import pytest

from thresher.errors import InputError
from thresher.models.causal_lm import language_model as language_model_module
from thresher.models.causal_lm.language_model import LanguageModel, language_model
from thresher.models.causal_lm.likelihood import TokenRow, score_rows
from thresher.models.causal_lm.shared_prefix import can_cache_prefixes, prepend_prefix, score_pairs

SMALL = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def architectures():
    import transformers as t

    grouped = {**SMALL, "num_key_value_heads": 2}
    own = {key: SMALL[key] for key in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**grouped, initializer_range=0.2)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(**own, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.2)
        ),
        "opt, projected": lambda: t.OPTForCausalLM(
            t.OPTConfig(**{**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 16, "init_std": 0.2})
        ),
        "mistral, sliding window": lambda: t.MistralForCausalLM(
            t.MistralConfig(**grouped, sliding_window=16, initializer_range=0.2)
        ),
        "gemma2, soft-capped logits": lambda: t.Gemma2ForCausalLM(
            t.Gemma2Config(**grouped, head_dim=8, sliding_window=16, initializer_range=0.2)
        ),
        "granite, scaled logits": lambda: t.GraniteForCausalLM(
            t.GraniteConfig(**grouped, logits_scaling=3.0, initializer_range=0.2)
        ),
        "bloom, no positions": lambda: t.BloomForCausalLM(
            t.BloomConfig(**own, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2)
        ),
    }


NAMES = (
    "llama",
    "gpt2",
    "opt, projected",
    "mistral, sliding window",
    "gemma2, soft-capped logits",
    "granite, scaled logits",
    "bloom, no positions",
)
WHOLE = {"gemma2, soft-capped logits", "granite, scaled logits"}
KEEPS_PREFIXES = {"llama", "gpt2", "opt, projected", "granite, scaled logits"}


def save(folder, name):
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        architectures()[name]().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory):
    folder = save(tmp_path_factory.mktemp("model"), request.param)
    return request.param, LanguageModel(str(folder), device="cpu")


@pytest.fixture
def lm(tiny_llama):
    return LanguageModel(str(tiny_llama), device="cpu")


def random_row(rng, n, *, first=False):
    is_scored = rng.random(n) < 0.5
    is_scored[0] &= first
    return TokenRow(rng.integers(0, 320, n).astype(np.int32), is_scored)


def some_rows(n=40, seed=0, longest=120, **settings):
    rng = np.random.default_rng(seed)
    return [random_row(rng, int(size), **settings) for size in rng.integers(1, longest, n)]


def slow(lm, row):
    """Return log p of the scored tokens from the model's own logits of this row alone."""
    import torch

    with torch.no_grad():
        log_p = lm.model(torch.from_numpy(row.ids.astype(np.int64))[None]).logits[0].double().log_softmax(-1).numpy()
    at = np.flatnonzero(row.is_scored)
    return log_p[at - 1, row.ids[at]]


def gathered(batches, n):
    found = {}
    for positions, log_probs in batches:
        assert not found.keys() & set(positions.tolist())
        found |= dict(zip(positions.tolist(), log_probs, strict=True))
    assert sorted(found) == list(range(n))
    return [found[i] for i in range(n)]


def assert_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=0)


def test_log_probabilities_equal_those_of_each_row_alone(case):
    name, lm = case
    rows = some_rows()
    for batch_tokens in (64, 1000):
        assert_close(gathered(score_rows(lm, rows, batch_tokens=batch_tokens), 40), [slow(lm, row) for row in rows])
    assert lm.is_run_whole == (name in WHOLE)
    assert len(list(lm.notes())) == lm.is_run_whole


def some_pairs(seed=0):
    rng = np.random.default_rng(seed)
    prefixes = [rng.integers(0, 320, n).astype(np.int32) for n in (1, 2, 30, 17, 50, 9)]
    rows = some_rows(30, seed=seed, longest=60, first=True)
    pairs = np.array([(p, r) for p in (4, 0, 1, 2, 3) for r in range(30) if rng.random() < 0.4])
    return prefixes, rows, rng.permutation(pairs)


def test_pairs_equal_each_row_behind_its_whole_prefix(case):
    name, lm = case
    prefixes, rows, pairs = some_pairs()
    wanted = [slow(lm, prepend_prefix(prefixes[p], rows[r])) for p, r in pairs]
    for batch_tokens in (40, 500):
        assert_close(gathered(score_pairs(lm, prefixes, rows, pairs, batch_tokens=batch_tokens), len(pairs)), wanted)
    assert can_cache_prefixes(lm) == (name in KEEPS_PREFIXES)


def test_a_shared_prefix_is_read_once(lm):
    rng = np.random.default_rng(0)
    prefixes = [rng.integers(0, 320, 100).astype(np.int32) for _ in range(3)]
    rows = [TokenRow(rng.integers(0, 320, 10).astype(np.int32), np.ones(10, dtype=np.bool_)) for _ in range(20)]
    pairs = np.array([(p, r) for p in range(3) for r in range(20)])
    list(score_pairs(lm, prefixes, rows, pairs, batch_tokens=1000))
    # the last token of a prefix is read with each row, the last of a row never
    assert lm.n_tokens == 3 * 99 + 60 * 10


def test_no_pairs_ask_nothing(lm):
    prefixes, rows, pairs = some_pairs()
    assert list(score_pairs(lm, prefixes, rows, pairs[:0], batch_tokens=100)) == []
    assert lm.n_tokens == 0


def test_a_pair_that_is_longer_than_the_model_reads_is_refused(lm):
    prefix = np.zeros(500, dtype=np.int32)
    row = TokenRow(np.zeros(20, dtype=np.int32), np.ones(20, dtype=np.bool_))
    with pytest.raises(InputError, match=r"at most 512 tokens.*got 1 longer pairs \(first: 0\)"):
        list(score_pairs(lm, [prefix], [row], np.array([[0, 0]]), batch_tokens=100))


def test_an_empty_prefix_is_refused(lm):
    row = TokenRow(np.zeros(2, dtype=np.int32), np.ones(2, dtype=np.bool_))
    with pytest.raises(InputError, match="a prefix must have at least one token"):
        list(score_pairs(lm, [np.zeros(0, dtype=np.int32)], [row], np.array([[0, 0]]), batch_tokens=100))


def test_logits_are_made_at_scored_positions_only(lm):
    n_logits = []
    head = lm.model.get_output_embeddings()
    lm.is_run_whole  # noqa: B018 - the probe runs before the counting
    hook = head.register_forward_hook(lambda module, given, out: n_logits.append(out.shape[0]))
    rows = some_rows()
    list(score_rows(lm, rows, batch_tokens=500))
    hook.remove()
    assert sum(n_logits) == sum(int(row.is_scored.sum()) for row in rows)


def test_logits_in_pieces_give_the_same_values(lm, monkeypatch):
    rows = some_rows()
    whole = gathered(score_rows(lm, rows, batch_tokens=1000), len(rows))
    monkeypatch.setattr(language_model_module, "CPU_LOGITS", 320)
    monkeypatch.setattr(language_model_module, "MIN_LOGIT_ROWS", 7)
    assert_close(gathered(score_rows(lm, rows, batch_tokens=1000), len(rows)), whole)


def test_an_adapter_is_scored_as_peft_runs_it(tiny_llama, tmp_path):
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of peft 0.21 with transformers 5.23
        torch.manual_seed(1)
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
        adapted = get_peft_model(base, config)
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_llama)
    adapted.save_pretrained(tmp_path / "adapter")
    own = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        plain = PeftModel.from_pretrained(own, tmp_path / "adapter").eval()
    lm = LanguageModel(str(tmp_path / "adapter"), device="cpu")
    row = some_rows(1, longest=60)[0]
    with torch.no_grad():
        log_p = plain(torch.from_numpy(row.ids.astype(np.int64))[None]).logits[0].log_softmax(-1).numpy()
    at = np.flatnonzero(row.is_scored)
    found = gathered(score_rows(lm, [row], batch_tokens=100), 1)[0]
    np.testing.assert_allclose(found, log_p[at - 1, row.ids[at]], atol=1e-4)
    of_base = LanguageModel(str(tiny_llama), device="cpu")
    assert np.abs(found - gathered(score_rows(of_base, [row], batch_tokens=100), 1)[0]).max() > 0.1
    assert lm.fingerprint != of_base.fingerprint
    assert not lm.is_run_whole


def test_an_adapter_of_prompt_tokens_is_refused(tiny_llama, tmp_path):
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_llama)
    adapted.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="must change layers.*got one that adds prompt tokens"):
        LanguageModel(str(tmp_path), device="cpu").model  # noqa: B018


def test_a_model_in_use_is_shared_and_let_go_with_its_last_user(tiny_llama):
    import gc
    import weakref

    first = language_model(str(tiny_llama), device="cpu")
    assert language_model(str(tiny_llama), device="cpu") is first
    assert language_model(str(tiny_llama), device="cpu", dtype="bfloat16") is not first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_an_encoder_is_refused(tiny_bert):
    with pytest.raises(InputError, match="scoring needs a causal language model, and 'bert' is an encoder"):
        LanguageModel(str(tiny_bert), device="cpu").model  # noqa: B018


def test_float32_is_kept_on_a_cpu_and_for_small_models(lm):
    assert lm.dtype == "float32"
    assert LanguageModel(lm.name, device="cpu", dtype="bfloat16").dtype == "bfloat16"
