"""One batch ahead: the order of launching and reading, and that a GPU gives what the CPU gives."""

import numpy as np
import pytest

from thresher.models import token_batches as batching
from thresher.models.async_copy import PendingTensor, prefetch_one, to_device_async
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import TokenRow, score_rows
from thresher.models.encoders.load import load_encoder
from thresher.models.token_batches import BATCH_TOKENS, MAX_BATCH_ROWS, bytes_per_token, token_batches, token_budget

torch = pytest.importorskip("torch")


def test_the_next_batch_is_launched_before_the_last_is_read():
    events = []

    def launch():
        for i in range(3):
            events.append(f"launch {i}")
            yield i

    events.extend(f"read {i}" for i in prefetch_one(launch()))
    assert events == ["launch 0", "launch 1", "read 0", "launch 2", "read 1", "read 2"]
    assert list(prefetch_one([])) == []


def test_a_failure_of_the_next_batch_comes_before_the_last_is_given():
    def launch():
        yield 1
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        list(prefetch_one(launch()))


def test_a_result_arrives_as_it_was(place):
    x = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    there = to_device_async(torch.from_numpy(x), torch.device(place))
    assert there.device.type == place
    np.testing.assert_array_equal(PendingTensor(there).array(), x)
    np.testing.assert_allclose(PendingTensor(there * 2).array(), 2 * x)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return request.param


def test_scores_of_many_batches_are_those_of_one(tiny_llama, place):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 60, 50)
    rows = [TokenRow(rng.integers(0, 320, n).astype(np.int32), np.r_[False, rng.random(n - 1) < 0.5]) for n in lengths]
    found = {}
    for device, tokens in (("cpu", 100_000), (place, 150), (place, None)):
        lm = LanguageModel(str(tiny_llama), device=device, dtype="float32")
        for positions, log_probs in score_rows(lm, rows, batch_tokens=tokens):
            for i, each in zip(positions, log_probs, strict=True):
                np.testing.assert_allclose(each, found.setdefault(int(i), each), atol=1e-3 if place == "cuda" else 1e-5)
    assert len(found) == 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.99999), ("bfloat16", 0.99)])
def test_an_encoder_gives_on_a_gpu_what_it_gives_on_a_cpu(make_sentences, dtype, least):
    texts = make_sentences(300)
    here = load_encoder("minilm", device="cpu").encode(texts)
    there = load_encoder("minilm", device="cuda", dtype=dtype).encode(texts)
    assert np.einsum("ij,ij->i", here, there).min() > least


def test_a_gpu_with_room_reads_more_tokens_at_once_and_one_without_fewer(monkeypatch):
    config = type("Config", (), {"hidden_size": 896, "intermediate_size": 4864})()
    each = bytes_per_token(config, 2)
    assert each == 2 * (8 * 896 + 4 * 4864)
    assert bytes_per_token(type("Config", (), {"hidden_size": 100, "intermediate_size": None})(), 4) == 4 * 2400
    of_layers = type("Config", (), {"hidden_size": 100, "intermediate_size": [300, 200]})()
    assert bytes_per_token(of_layers, 4) == 4 * (800 + 1200)
    cpu = torch.device("cpu")
    assert token_budget(cpu, each) == BATCH_TOKENS
    budgets = []
    for free in (0, 10**8, 2 * 10**9, 4 * 10**9, 10**11):
        monkeypatch.setattr(batching, "free_bytes", lambda _, free=free: free)
        budgets.append(token_budget(cpu, each))
    assert budgets == [1024, 1024, 10**9 // each, 2 * 10**9 // each, 131_072]


def test_a_large_budget_holds_more_rows_and_a_small_one_as_many_as_before():
    short = np.full(5_000, 2)
    assert max(map(len, token_batches(short, BATCH_TOKENS))) == MAX_BATCH_ROWS
    assert max(map(len, token_batches(short, 8 * BATCH_TOKENS))) == 8 * MAX_BATCH_ROWS
