"""The products of a device, on the CPU by the same code, against numpy's."""

import dataclasses

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, SettingsError
from thresher.features.container import Features
from thresher.models import device, torch_products
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.generation.decoding_loop import generate_plainly
from thresher.models.torch_products import TorchProducts, load_products
from thresher.numeric.matmul import NUMPY
from thresher.selectors import create
from thresher.selectors.neighbors import search

torch = pytest.importorskip("torch")
KERNELS = [("facility-location", {}), ("saturated-coverage", {}), ("quality-diversity", {"kernel": "dense"})]


def rows(n=700, d=24, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((30, d))[rng.integers(30, size=n)] + 0.6 * rng.standard_normal((n, d))
    x[[7, 20, 41]] = x[3]
    x[50] = 0
    return x.astype(np.float32)


def picks(name, settings, products, x):
    ids = pl.Series([f"{i:06d}" for i in range(len(x))])
    number = np.random.default_rng(1).standard_normal(len(x))
    data = Features(row_id=ids, arrays={"embedding": x, "number:score": number}, products=products)
    return create(name, settings).score(data, n_ranked=150, rng=np.random.default_rng(0))


def make_products(name="cpu", **settings):
    return TorchProducts(name, **{"worth": 0, **settings})


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return request.param


@pytest.mark.parametrize(("name", "settings"), KERNELS)
def test_the_picks_of_a_dense_kernel_are_those_of_numpy(name, settings, place, monkeypatch):
    monkeypatch.setattr(torch_products, "BLOCK_CELLS", 10_000)
    x = rows()
    here, there = (picks(name, settings, products, x) for products in (NUMPY, make_products(place)))
    assert there.ranking().tolist() == here.ranking().tolist()
    np.testing.assert_allclose(there.objective, here.objective, rtol=1e-5)
    assert here.notes["products"] == "numpy"
    assert there.notes["products"] == f"torch on {place}"


def test_the_picks_of_a_graph_found_by_lists_are_those_of_numpy(place, monkeypatch):
    monkeypatch.setattr(search, "EXACT_ROWS", 100)
    x = rows(3_000, 16)
    x = x[np.unique(x, axis=0, return_index=True)[1]]  # of equal rows either may be found
    settings = {"kernel": "sparse", "n_neighbors": 12}
    here, there = (picks("facility-location", settings, products, x) for products in (NUMPY, make_products(place)))
    assert there.ranking().tolist() == here.ranking().tolist()
    assert there.notes["search"] == "inverted lists"
    assert there.notes["products"] == f"torch on {place}"


def test_the_triangle_is_that_of_all_products(place, monkeypatch):
    x = rows()
    for cells in (1, 10_000, 1 << 20):
        monkeypatch.setattr(torch_products, "BLOCK_CELLS", cells)
        found = make_products(place).lower_triangle(x[:90])
        np.testing.assert_allclose(np.tril(found), np.tril(x[:90].astype(np.float64) @ x[:90].T), rtol=1e-5, atol=1e-4)


def test_the_largest_products_are_among_those_that_are_found(place):
    x, y = rows(), rows(200, seed=1)
    queries, members = np.array([5, 699, 5]), np.arange(3, 180, 2, dtype=np.int32)
    product = x[queries].astype(np.float64) @ y[members].T
    for products in (NUMPY, make_products(place)):
        for k in (1, 10, 500):
            value, member = products.load_rows(x).largest_products(queries, products.load_rows(y), members, k)
            at = np.searchsorted(members, member)
            np.testing.assert_allclose(value, np.take_along_axis(product, at, axis=1), rtol=1e-5, atol=1e-4)
            best = np.sort(product, axis=1)[:, -min(k, len(members)) :]
            np.testing.assert_allclose(np.sort(value, axis=1)[:, -best.shape[1] :], best, rtol=1e-5, atol=1e-4)


@pytest.fixture(params=["old", "new"])
def hasty(request):
    """Let the process ask for TF32, by either interface of torch."""
    if request.param == "old":
        torch.set_float32_matmul_precision("high")
    else:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "none"


def test_products_are_in_full_precision_whatever_the_process_has_set(hasty, monkeypatch):
    seen, real = [], torch.topk
    setting = torch.backends.cuda.matmul
    monkeypatch.setattr(torch, "topk", lambda *a, **k: seen.append(setting.fp32_precision) or real(*a, **k))
    held = make_products().load_rows(rows())
    held.largest_products(np.arange(3), held, np.arange(9), 2)
    assert seen == ["ieee"]
    assert setting.fp32_precision == "tf32"


def test_models_are_in_full_precision_whatever_the_process_has_set(hasty, tiny_llama):
    lm, seen = LanguageModel(str(tiny_llama), device="cpu", dtype="float32"), []
    assert not lm.is_run_whole
    lm.model.base_model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.matmul.fp32_precision))
    at = torch.tensor([0, 1])
    ids = torch.tensor([[5, 6, 7]])
    lm.log_probabilities({"input_ids": ids}, at, at)
    assert seen == ["ieee"]
    generate_plainly(lm.model, ids, torch.ones_like(ids), max_new_tokens=2, pad_id=0, stops=frozenset({2}))
    assert len(seen) > 1
    assert set(seen) == {"ieee"}


def test_a_device_that_has_become_full_is_one_sentence(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "topk", full)
    held = make_products().load_rows(rows())
    with pytest.raises(InputError, match="products on cpu: rows and their products must fit the device's memory"):
        held.largest_products(np.arange(3), held, np.arange(9), 2)


def test_small_work_and_rows_without_room_stay_in_numpy(monkeypatch):
    products = TorchProducts("cpu")
    assert products.choose_backend(1e9, 1000) is NUMPY
    assert products.choose_backend(1e12, 1000) is products
    monkeypatch.setattr(torch_products, "free_bytes", lambda _: 10**9)
    assert products.choose_backend(1e12, 10**8) is products
    assert products.choose_backend(1e12, 10**9) is NUMPY


def test_only_a_cuda_device_gets_products(monkeypatch):
    monkeypatch.setattr(device, "LINUX_ACCELERATORS", ())
    assert load_products("cpu") is NUMPY
    assert load_products("mps") is NUMPY
    if not torch.cuda.is_available():
        assert load_products("cuda") is NUMPY
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_products("cuda:1").name == "torch on cuda:1"
    monkeypatch.setattr(torch_products, "may_have_gpu", lambda: True)
    assert load_products(None).name == "torch on cuda"


def test_features_keep_their_products_when_they_are_replaced():
    data = Features(row_id=pl.Series(["a"]), arrays={"embedding": np.ones((1, 2), np.float32)})
    assert data.products is NUMPY
    products = make_products()
    assert dataclasses.replace(data, products=products).products is products


ROWS = [{"prompt": f"color of shirt {i}", "response": "red" if i % 3 else "blue"} for i in range(20)]


def test_select_hands_its_method_the_products_of_the_device(monkeypatch):
    monkeypatch.setattr(torch_products, "load_products", lambda device: make_products() if device == "cpu" else NUMPY)
    subset = th.select(ROWS, "facility-location", budget=4, encoder="static", device="cpu")
    assert subset.manifest.content["notes"]["products"] == "torch on cpu"


def test_the_precision_that_is_asked_for_is_that_of_the_model_and_another_result(tiny_llama):
    asked = {"method": "perplexity", "budget": 4, "model": str(tiny_llama), "device": "cpu"}
    whole, half = (th.select(ROWS, dtype=dtype, **asked).manifest.content for dtype in (None, "bfloat16"))
    assert whole["features"]["loss"]["dtype"] == "float32"
    assert half["features"]["loss"]["dtype"] == "bfloat16"
    assert whole["identity"] != half["identity"]
    with pytest.raises(SettingsError, match="dtype must be one of 'float32', 'bfloat16', 'float16', got 'half'"):
        th.select(ROWS, dtype="half", **asked)
