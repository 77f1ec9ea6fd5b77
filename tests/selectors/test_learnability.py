"""Learnability against its formulae, and from rows to scores with a trained reference."""

import warnings

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features import FeatureContext, compute, make_context
from thresher.features.container import Features
from thresher.selectors.learnability import KNOWN, Learnability

CUT = "nothing of the response is within max_length"
ROWS = [{"prompt": f"add {i} and 1:", "completion": f"{i + 1} " * (1 + i % 4)} for i in range(12)]


def scores(loss, reference, *, missing=None, **settings):
    n = len(loss)
    reasons = pl.Series([None] * n if missing is None else missing, dtype=pl.String)
    arrays = {"loss": np.array(loss, np.float64), "reference_loss": np.array(reference, np.float64)}
    data = Features(row_id=pl.Series([str(i) for i in range(n)]), arrays=arrays, missing=dict.fromkeys(arrays, reasons))
    return Learnability(**settings).score(data, n_ranked=1, rng=np.random.default_rng(0))


def test_relative_is_the_share_of_the_loss_that_goes_away():
    found = scores([2.0, 4.0, 1.0, 3.0], [1.0, 3.0, 0.1, 3.5])
    np.testing.assert_allclose(found.value, [0.5, 0.25, 0.9, -1 / 6])
    assert found.ranking().tolist() == [2, 0, 1, 3]


def test_dividing_by_the_reference_would_rank_alike():
    rng = np.random.default_rng(0)
    loss, reference = rng.uniform(0.2, 4, 50), rng.uniform(0.1, 4, 50)
    by_reference = (loss - reference) / reference
    assert scores(loss, reference).ranking().tolist() == np.argsort(-by_reference).tolist()


def test_difference_is_in_nats_per_token():
    found = scores([2.0, 4.0, 1.0], [1.5, 3.0, 0.1], form="difference")
    np.testing.assert_allclose(found.value, [0.5, 1.0, 0.9])


def test_rows_that_the_base_knows_and_rows_without_a_loss_are_excluded_with_their_reasons():
    found = scores([0.04, np.nan, 2.0, 0.0], [0.001, np.nan, 1.0, 0.0], missing=[None, CUT, None, None])
    assert found.excluded.to_list() == [KNOWN, CUT, None, KNOWN]
    assert found.ranking().tolist() == [2]
    assert scores([0.04, 0.0], [0.02, 0.0], min_loss=0.0).excluded.to_list() == [None, KNOWN]


@pytest.fixture(scope="module")
def adapter(tiny_llama, tmp_path_factory):
    """Return an adapter on the tiny Llama, random but written as peft does."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of peft 0.21 with transformers 5.23
        torch.manual_seed(1)
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), config)
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_llama)
    adapted.save_pretrained(folder)
    return folder


def context(folder, **settings):
    return make_context(**{"model": str(folder), "device": "cpu", "cache": None, **settings})


def test_the_reference_loss_is_the_loss_under_the_reference(tiny_llama, adapter):
    pool = th.load(ROWS)
    found = compute(pool, {"loss", "reference_loss"}, context(tiny_llama, reference=str(adapter)))
    np.testing.assert_array_equal(found["reference_loss"], compute(pool, {"loss"}, context(adapter))["loss"])
    assert np.abs(found["loss"] - found["reference_loss"]).max() > 0.01


def test_rows_are_ranked_by_both_models(tiny_llama, adapter):
    subset = th.select(
        ROWS, "learnability", budget=3, settings={"reference": str(adapter)}, model=str(tiny_llama), device="cpu"
    )
    pool = th.load(ROWS)
    loss, reference = (compute(pool, {"loss"}, context(folder))["loss"] for folder in (tiny_llama, adapter))
    np.testing.assert_allclose(subset.scores.value, (loss - reference) / loss, atol=1e-6)
    about = subset.manifest.content["features"]
    assert about["reference_loss"]["model"] == str(adapter)
    assert about["loss"]["model"] == str(tiny_llama)


def test_an_adapter_that_train_wrote_is_a_reference(tiny_llama, tmp_path):
    settings = th.TrainSettings(epochs=1, learning_rate=3e-3, batch_size=4)
    th.train(ROWS, model=str(tiny_llama), settings=settings, control="none", out=tmp_path / "reference")
    subset = th.select(
        ROWS,
        "learnability",
        budget=3,
        settings={"reference": str(tmp_path / "reference")},
        model=str(tiny_llama),
        device="cpu",
    )
    assert subset.scores.value.max() > 0


def test_the_feature_without_a_reference_is_refused():
    with pytest.raises(InputError, match="reference_loss: needs a reference that has learned similar rows, found none"):
        compute(th.load(ROWS), {"reference_loss"}, FeatureContext())


def test_a_reference_that_is_the_model_itself_is_refused(tiny_llama):
    with pytest.raises(InputError, match="model and reference must differ"):
        compute(th.load(ROWS), {"reference_loss"}, context(tiny_llama, reference=str(tiny_llama)))


def test_a_reference_that_reads_other_tokens_is_refused(tiny_llama, plain_llama):
    with pytest.raises(InputError, match=r"must read a row as the same tokens.*give the reference's base as --model"):
        compute(th.load(ROWS), {"reference_loss"}, context(plain_llama, reference=str(tiny_llama)))
