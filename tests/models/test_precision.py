"""In which precision models run where nobody asks for one."""

import numpy as np
import pytest

from thresher import TrainSettings
from thresher.features import make_context
from thresher.models import precision
from thresher.models.causal_lm import language_model
from thresher.models.causal_lm.base_model import find_base
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import TokenRow, score_rows
from thresher.models.precision import gains_from_bfloat16, multiplies_bfloat16
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.load_model import choose_precision


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Return a function that puts another processor in place; models of any size gain from it."""

    def put(text):
        (tmp_path / "cpuinfo").write_text(text)
        multiplies_bfloat16.cache_clear()

    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(precision, "SMALL_BYTES", 0)
    yield put
    multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("text", "is_native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 gfni\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx512f avx512_vnni\n", False),
        ("model name\t: a processor with bf16 in its name\nflags\t\t: fpu\n", False),
        ("", False),
    ],
)
def test_the_flags_of_the_processor_say_whether_it_multiplies_bfloat16(processor, text, is_native):
    processor(text)
    assert multiplies_bfloat16() == is_native


def test_where_the_system_does_not_tell_it_is_float32(processor, tiny_llama):
    multiplies_bfloat16.cache_clear()  # and no file is put in place
    assert not gains_from_bfloat16(tiny_llama)


def test_scores_in_another_precision_are_cached_apart(processor, tiny_llama):
    fingerprints = {}
    for text, dtype in (("flags : amx_bf16", "bfloat16"), ("flags : fpu", "float32")):
        processor(text)
        lm = LanguageModel(str(tiny_llama), device="cpu")
        assert lm.dtype == dtype
        fingerprints[dtype] = lm.fingerprint
    assert fingerprints["bfloat16"] != fingerprints["float32"]
    assert LanguageModel(str(tiny_llama), device="cpu", dtype="bfloat16").fingerprint == fingerprints["bfloat16"]


def test_small_models_stay_in_float32(processor, tiny_llama, monkeypatch):
    processor("flags : amx_bf16")
    monkeypatch.setattr(precision, "SMALL_BYTES", 50 * 10**6)
    assert LanguageModel(str(tiny_llama), device="cpu").dtype == "float32"


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a GPU decides for itself")
def test_training_records_what_auto_means_here(processor, tiny_llama, question_rows):
    runs = {}
    for text, expected in (("flags : amx_bf16", "bf16"), ("flags : fpu", "fp32")):
        processor(text)
        runs[expected] = resolve_run(question_rows, model=tiny_llama, settings=TrainSettings(), seed=0)
        assert runs[expected].settings.precision == expected
    assert runs["bf16"].identity() != runs["fp32"].identity()


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="a GPU decides for itself")
def test_classifiers_stay_in_float32_and_what_is_asked_for_counts(processor, tiny_bert):
    processor("flags : amx_bf16")
    base = find_base(tiny_bert)
    assert choose_precision("auto", base=base, task="classification") == "fp32"
    assert choose_precision("bf16", base=base, task="classification") == "bf16"
    assert choose_precision("fp32", base=base, task="sft") == "fp32"


def test_the_manifest_says_in_which_precision_a_score_was_computed(processor, tiny_llama):
    from thresher.features import fingerprints

    processor("flags : amx_bf16")
    context = make_context(model=str(tiny_llama), device="cpu", cache=None)
    assert fingerprints({"loss"}, context)["loss"]["dtype"] == "bfloat16"


@pytest.mark.parametrize(("limit", "kind"), [(512, "eager"), (8, "sdpa")])
def test_attention_is_that_which_pays_and_says_the_same(tiny_llama, monkeypatch, limit, kind):
    monkeypatch.setattr(language_model, "PLAIN_ATTENTION_TOKENS", limit)
    rng = np.random.default_rng(0)
    rows = [TokenRow(rng.integers(3, 320, n).astype(np.int32), np.arange(n) > 2) for n in (40, 25, 9)]

    def score(dtype):
        lm = LanguageModel(str(tiny_llama), device="cpu", dtype=dtype)
        scored = list(score_rows(lm, rows, batch_tokens=100))
        order = np.concatenate([batch.positions for batch in scored])
        values = [each for batch in scored for each in batch.log_probs]
        return lm, [values[i] for i in np.argsort(order)]

    exact, expected = score("float32")
    assert exact.model.config._attn_implementation == "sdpa"  # faster there
    lm, values = score("bfloat16")
    lm.choose_attention(40)
    assert lm.model.config._attn_implementation == kind
    for one, other in zip(values, expected, strict=True):  # two steps of bfloat16 from 8 to 16
        np.testing.assert_allclose(one, other, atol=0.125)
