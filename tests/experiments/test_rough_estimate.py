"""The estimate before the first run: operations over speed, and no guess where nothing is known."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from thresher.experiments.design import rough_estimate
from thresher.experiments.design.rough_estimate import describe_rough_time, estimate_roughly
from thresher.experiments.experiment import prepare_experiment


@pytest.fixture
def experiment(pool, test_rows, tiny_bert, quick, monkeypatch):
    monkeypatch.setattr(rough_estimate, "measure_speed", lambda precision: 1e6)
    monkeypatch.setattr(rough_estimate, "may_have_gpu", lambda: False)
    return prepare_experiment(pool, eval=test_rows, model=tiny_bert, settings=quick, metric=None)


def test_it_is_the_operations_of_a_run_over_the_speed(experiment, tiny_bert):
    weights = load_file(tiny_bert / "model.safetensors")
    words = next(value for name, value in weights.items() if name.endswith("word_embeddings.weight"))
    used = sum(value.size for value in weights.values()) - words.size
    settings = experiment.resolve_settings()
    low, high = estimate_roughly(experiment, [16], 1)
    assert high == pytest.approx(4 * low)
    # bounds by another way: tokens of a row are between its words and its letters
    n_steps = rough_estimate.count_steps(16, settings)
    texts = experiment.pool.frame["prompt"].str
    for per_row, compare in ((texts.count_matches(" ").mean(), np.less), (texts.len_chars().mean() + 20, np.greater)):
        step = 4 * used * per_row * settings.batch_size / 1e6
        measuring = 2 * used * per_row * len(experiment.test) / 1e6
        assert compare(n_steps * step + measuring, np.sqrt(low * high))


def test_it_grows_with_the_runs_and_falls_with_the_workers(experiment):
    one, two = (estimate_roughly(experiment, sizes, 1)[0] for sizes in ([16], [16, 16]))
    assert two == pytest.approx(2 * one)
    assert estimate_roughly(experiment, [16, 16], 2)[0] == pytest.approx(one)
    assert "roughly " in describe_rough_time(experiment, [16], 1)


def test_nothing_is_guessed_of_a_gpu(experiment, monkeypatch):
    monkeypatch.setattr(rough_estimate, "may_have_gpu", lambda: True)
    assert estimate_roughly(experiment, [16], 1) is None
    assert describe_rough_time(experiment, [16], 1) == "the first run tells how long they take"
