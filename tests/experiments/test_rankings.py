"""Rankings of methods that train before they rank: with the experiment's model, for each seed."""

import numpy as np
import pytest

import thresher as th
from thresher.experiments.rankings import Rankings
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import MethodExperimentSettings
from thresher.selection.pool_adapters import get_adapter_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


def test_a_reference_is_trained_once_for_each_seed_and_never_again(tiny_llama, question_rows):
    options = {"encoder": "static", "model": str(tiny_llama), "device": "cpu"}
    rankings = Rankings(pool=th.load(question_rows), options=options)
    first = rankings.rank("learnability", 10, seed=0)
    assert rankings.rank("learnability", 5, seed=0) is first
    other = rankings.rank("learnability", 10, seed=1)
    assert get_adapter_cache().size()[0] == 2
    again = Rankings(pool=th.load(question_rows), options=options).rank("learnability", 20, seed=0)
    assert get_adapter_cache().size()[0] == 2
    np.testing.assert_array_equal(again.rows[:10], first.rows)
    assert other is not first


@pytest.mark.parametrize("kind", ["questions", "colors"])
def test_methods_ask_the_language_model_that_is_trained(kind, tiny_llama, tiny_bert, question_rows, color_rows):
    rows, model = (question_rows, tiny_llama) if kind == "questions" else (color_rows, tiny_bert)
    settings = MethodExperimentSettings(model=model, overlap="drop", encoder="static")
    with ExperimentRunner.open(rows, eval="20%", settings=settings) as runner:
        asked = runner.rankings.options.get("model")
    # a classifier gives no likelihoods
    assert asked == (str(tiny_llama) if kind == "questions" else None)
