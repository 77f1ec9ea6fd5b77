"""Intruder dimensions and movement, against a full SVD and against matrices of known kind."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch

from thresher.errors import SettingsError
from thresher.reporting.pages.figures.moved_layers import build_diagnosis
from thresher.trainer.context import resolve_run
from thresher.trainer.diagnosis import (
    compute_left_vectors,
    describe_intruders,
    diagnose_adapter,
    find_intruders,
    format_diagnosis,
)
from thresher.trainer.engine.fit import build_model
from thresher.trainer.engine.lora import merge_adapter
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train

SHAPES = [(40, 40), (30, 70), (70, 30), (6, 50)]
QUICK = TrainSettings(max_steps=3, batch_size=8, learning_rate=1e-2, max_length=32)


def find_by_full_svd(base, trained, k, epsilon):
    before, after = (np.linalg.svd(matrix, full_matrices=False)[0] for matrix in (base, trained))
    return [j for j in range(min(k, after.shape[1])) if np.abs(before.T @ after[:, j]).max() < epsilon]


def draw_base(shape, seed):
    """Return a matrix whose singular values fall from 10 to 1."""
    u, _, vh = np.linalg.svd(np.random.default_rng(seed).standard_normal(shape), full_matrices=False)
    return (u * np.linspace(10, 1, len(vh))) @ vh


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0.0, 1.0, 10.0, 100.0])
def test_intruders_are_those_of_a_full_svd(shape, size):
    for seed in range(4):
        rng, base = np.random.default_rng(seed), draw_base(shape, seed)
        trained = base + size / shape[0] * rng.standard_normal((shape[0], 4)) @ rng.standard_normal((4, shape[1]))
        for k, epsilon in ((10, 0.5), (3, 0.6), (100, 0.3)):
            assert find_intruders(base, trained, k=k, epsilon=epsilon) == find_by_full_svd(base, trained, k, epsilon)


def test_the_cases_of_the_sweep_have_intruders_and_have_none():
    base, rng = draw_base((40, 40), 0), np.random.default_rng(0)
    update = rng.standard_normal((40, 4)) @ rng.standard_normal((4, 40))
    assert find_by_full_svd(base, base + 100 / 40 * update, 10, 0.5)
    assert not find_by_full_svd(base, base, 10, 0.5)


def test_a_planted_direction_is_new_and_rescaled_ones_are_not():
    u, s, vh = np.linalg.svd(np.random.default_rng(3).standard_normal((50, 50)))
    s[20:] = 0.0  # the base has rank 20, so column 20 of u is at right angles to all its directions
    base = (u * s) @ vh
    assert find_intruders(base, base + 2 * s[0] * np.outer(u[:, 20], vh[20])) == [0]
    assert find_intruders(base, (u * np.where(np.arange(50) < 5, 0.1 * s, 3 * s)) @ vh) == []
    even = u[:, :16].sum(axis=1) / 4  # cosine 1/4 with each of 16 directions
    assert find_intruders(base, base + 100 * s[0] * np.outer(even, vh[20]))[0] == 0


def test_left_vectors_of_zeros_are_none():
    assert compute_left_vectors(np.zeros((4, 3))).shape == (4, 0)
    assert find_intruders(np.zeros((4, 3)), np.eye(4, 3)) == [0, 1, 2]


@pytest.fixture(scope="module")
def build(tiny_llama, question_rows):
    """Return a function from settings to a fresh model."""

    def run(**options):
        settings = TrainSettings(**{"precision": "fp32", "lora_rank": 4, **options})
        context = resolve_run(question_rows, model=tiny_llama, settings=settings, seed=0)
        return build_model(context, seed=0, rows=context.tokenize(context.data).rows).eval()

    return run


def change(model, size):
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name or "magnitude" in name:
            with torch.no_grad():
                parameter += size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return model


def test_a_fresh_adapter_moved_nothing(build):
    section = diagnose_adapter(build())
    assert [each["layer"] for each in section["layers"]] == [0, 1]
    assert {each["moved"] for each in section["matrices"]} == {0.0}
    assert section["intruders"] == 0
    assert section["directions"] == 10 * len(section["matrices"]) > 0
    assert format_diagnosis(section) == format_diagnosis(None) == []


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"adapter": "pissa"}, {"rslora": True}])
def test_the_weights_are_those_of_the_merged_model(build, options):
    model = change(build(**options), 0.3)
    before = {n: p.detach().double().numpy().copy() for n, p in build().named_parameters() if "base_layer.weight" in n}
    section = diagnose_adapter(model)
    merged = {n: p.detach().double().numpy() for n, p in merge_adapter(deepcopy(model)).named_parameters()}
    total, size = 0.0, 0.0
    for each in section["matrices"]:
        base = before[f"base_model.model.{each['name']}.base_layer.weight"]
        after = merged[f"{each['name']}.weight"]
        assert each["moved"] == pytest.approx(np.linalg.norm(after - base) / np.linalg.norm(base), rel=1e-4)
        assert each["intruders"] == len(find_by_full_svd(base, after, 10, 0.5))
        if each["layer"] == 1:
            total, size = total + np.sum((after - base) ** 2), size + np.sum(base**2)
    assert section["layers"][1]["moved"] == pytest.approx((total / size) ** 0.5, rel=1e-4)
    assert section["intruders"] > 0


def write_section(*intruders):
    layers = [
        {"layer": number, "matrices": 1, "directions": 10, "intruders": n, "moved": 0.01 * number}
        for number, n in enumerate(intruders)
    ]
    matrices = [{**each, "name": f"layers.{each['layer']}.<b>q</b>"} for each in layers]
    totals = {"directions": 10 * len(layers), "intruders": sum(intruders)}
    return {"leading": 10, "epsilon": 0.5, **totals, "layers": layers, "matrices": matrices}


def test_the_sentence_says_how_many_and_where():
    assert describe_intruders(write_section(0, 0)) == "None of 20 leading directions is new: no intruder dimensions."
    one = "1 of 20 leading directions is new (intruder dimension), in layer 1."
    assert describe_intruders(write_section(0, 1)) == one
    many = "12 of 40 leading directions are new (intruder dimensions), all in layers 1 to 3."
    assert describe_intruders(write_section(0, 4, 0, 8)) == many
    assert format_diagnosis(write_section(0, 4, 0, 8)) == [many]
    assert describe_intruders(write_section(4, 8)).endswith("are new (intruder dimensions), in all layers.")
    assert describe_intruders(write_section()).startswith("No linear layer is adapted")


def test_the_page_shows_each_layer():
    sentence, bars, table = build_diagnosis(write_section(0, 4))
    assert sentence.text.startswith("4 of 20 leading directions are new (intruder dimensions), all in layer 1.")
    assert [(each.name, each.value) for each in bars.shares] == [("layer 0", 0.0), ("layer 1", 1.0)]
    assert bars.shares[1].text == "1 %, 4 new directions"
    assert [row[1:] for row in table.rows] == [("0 %", "10", "0"), ("1 %", "10", "4")]
    assert build_diagnosis(None) == []


@pytest.mark.parametrize(
    ("moved", "text"),
    [
        (None, "base is zero"),
        (0.0, "0 %"),
        (1e-6, "below 0.01 %"),
        (0.0152, "1.5 %"),
        (0.0996, "10 %"),
        (2.94, "294 %"),
    ],
)
def test_movement_is_written_without_exponents(moved, text):
    section = write_section(0)
    section["matrices"][0]["moved"] = moved
    assert build_diagnosis(section)[2].rows[0][1] == text


def test_a_training_writes_it_when_asked(tiny_bert, color_rows, tmp_path):
    given = {"model": tiny_bert, "settings": QUICK, "merge": True, "out": tmp_path / "a"}
    adapter = train(color_rows, diagnose=True, **given)
    section = json.loads((tmp_path / "a" / "metrics.json").read_bytes())["diagnosis"]
    assert adapter.metrics["diagnosis"] == section
    assert all(each["moved"] > 0 for each in section["layers"])
    assert "diagnosis" not in train(color_rows, force=True, **given).metrics


@pytest.mark.parametrize("kind", ["adalora", "vera", "full"])
def test_kinds_without_a_low_rank_product_are_refused(tiny_bert, color_rows, kind):
    with pytest.raises(SettingsError, match="diagnose: needs an update that is a low-rank product"):
        train(color_rows, model=tiny_bert, settings=TrainSettings(adapter=kind), diagnose=True)
