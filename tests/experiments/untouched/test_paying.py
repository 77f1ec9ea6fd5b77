"""From how many rows on training beats the untouched model, or never."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from thresher.dataset import load
from thresher.evaluation.gain import Gain
from thresher.evaluation.metric import find_metric
from thresher.experiments.experiment import Experiment
from thresher.experiments.untouched.row_zero import (
    References,
    Trained,
    describe_gains,
    describe_paying_size,
    find_paying_size,
    format_row_zero,
    measure_references,
)
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched.settings import UntouchedSettings


def gain(low, high, n_seeds=3):
    return Gain(value=(low + high) / 2, low=low, high=high, stderr=(high - low) / 4, n=100, n_seeds=n_seeds)


UP, FLAT, DOWN = (0.1, 0.2), (-0.1, 0.1), (-0.2, -0.1)


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([UP, UP, UP], (10, None)),
        ([FLAT, UP, UP], (20, 10)),
        ([DOWN, FLAT, UP], (40, 20)),
        ([UP, FLAT, UP], (40, 20)),  # a dip after the first gain: it must stay
        ([UP, UP, FLAT], None),
        ([FLAT, FLAT, FLAT], None),
        ([DOWN, DOWN, DOWN], None),
    ],
)
def test_it_pays_from_the_size_on_after_which_every_interval_is_above_zero(intervals, expected):
    pays = find_paying_size({size: gain(*ends) for size, ends in zip((10, 20, 40), intervals, strict=True)})
    assert (None if pays is None else (pays["n_rows"], pays["not_at"])) == expected


def test_sizes_with_one_run_do_not_decide_where_others_have_more():
    gains = {10: gain(*UP, n_seeds=1), 20: gain(*FLAT), 40: gain(*UP), 80: gain(*FLAT, n_seeds=1)}
    pays = find_paying_size(gains)
    assert (pays["n_rows"], pays["not_at"]) == (40, 20)
    alone = find_paying_size({10: gain(*FLAT, n_seeds=1), 20: gain(*UP, n_seeds=1)})
    assert alone["n_rows"] == 20


def test_a_single_size_is_no_size_from_which_on_it_pays():
    answer = describe_paying_size({64: gain(*UP)}, {64: "untouched"}, find_metric("loss", "sft"))
    assert answer.startswith("pays with 64 rows: better than the untouched model by 0.150 nats")
    both = describe_paying_size(
        {32: gain(*UP), 64: gain(*UP)}, {32: "untouched", 64: "untouched"}, find_metric("loss", "sft")
    )
    assert both.startswith("pays from 32 rows on: better than the untouched model by 0.150 nats")


def test_a_gain_in_a_single_run_is_not_called_never(experiment):
    runs = {
        ("random", 10): [outcomes(0.5, 0.5, seed=seed) for seed in range(3)],
        ("random", 20): [outcomes(0.9, 0.5, seed=10)],
    }
    references = measure_references(experiment, [table for tables in runs.values() for table in tables])
    answer = describe_gains(experiment, references, runs)["methods"]["random"]
    assert answer["pays_from"] is None
    assert answer["sentence"].startswith("may pay: with 20 rows, better than a probe")
    assert answer["sentence"].endswith("but in a single run; more seeds would settle it")


def outcomes(share, probe_share=None, n=400, seed=0, majority=0.25):
    """Outcomes in which so many rows have the label that is the most frequent one of the pool."""
    rng = np.random.default_rng(seed)
    label = np.where(np.arange(n) < majority * n, "a", "b")
    table = {"row_id": list(map(str, range(n))), "label": label}

    def answer(part, prefix):
        correct = rng.random(n) < part
        named = np.where(correct, "a", "b")
        return {f"{prefix}prediction": named, f"{prefix}correct": correct, f"{prefix}loss": np.ones(n)}

    more = {} if probe_share is None else answer(probe_share, "probe_")
    return pl.DataFrame({**table, **answer(share, ""), **more})


@pytest.fixture
def experiment():
    rows = load([{"text": f"t{i}", "label": label} for i, label in enumerate("aab" * 4)])
    metric = find_metric("accuracy", "classification")
    return Experiment(
        pool=rows,
        test=rows,
        model=None,
        settings=TrainSettings(),
        metric=metric,
        labels=("a", "b"),
        untouched=UntouchedSettings(),
    )


def test_each_cell_is_held_against_the_probe_of_its_own_rows(experiment):
    runs = {
        ("random", 10): [outcomes(0.5, 0.5, seed=seed) for seed in range(3)],
        ("random", 20): [outcomes(0.9, 0.6, seed=10 + seed) for seed in range(3)],
        ("worse", 20): [outcomes(0.4, 0.7, seed=20 + seed) for seed in range(3)],
    }
    references = measure_references(experiment, [table for tables in runs.values() for table in tables])
    assert references.has_probe
    base = describe_gains(experiment, references, runs)
    assert [entry["name"] for entry in base["references"]] == ["majority class", "probe"]
    assert base["strongest"] == "probe"
    at_20 = base["methods"]["random"]["gains"][1]
    expected = np.mean([t["correct"].mean() - t["probe_correct"].mean() for t in runs["random", 20]])
    assert at_20["value"] == pytest.approx(expected)
    assert base["methods"]["random"]["pays_from"]["n_rows"] == 20
    assert base["methods"]["random"]["sentence"].startswith("pays from 20 rows on: better than a probe")
    assert base["methods"]["worse"]["pays_from"] is None
    assert base["methods"]["worse"]["sentence"].startswith("never pays here: with 20 rows, worse than a probe")
    lines = format_row_zero(base, "accuracy")
    assert lines[0].startswith("without training, accuracy: majority class 0.2500")
    assert len(lines) == 3


def test_each_base_model_has_a_probe_of_its_own(experiment):
    runs = {("random, model a", 20): [outcomes(0.9, 0.4)], ("random, model b", 20): [outcomes(0.9, 0.8, seed=1)]}
    trained = {group: Trained(experiment.pool, model=group[0][-1]) for group in runs}
    tables = [table for each in runs.values() for table in each]
    base = describe_gains(experiment, measure_references(experiment, tables, trained=trained), runs)
    probes = {entry["name"]: entry["value"] for entry in base["references"][1:]}
    assert probes == {
        "probe on a": pytest.approx(tables[0]["probe_correct"].mean()),
        "probe on b": pytest.approx(tables[1]["probe_correct"].mean()),
    }
    assert base["strongest"] == "probe on b"


def test_training_must_beat_the_best_reference_of_each_size_not_the_probe_alone(experiment):
    runs = {
        ("random", 10): [outcomes(0.3, 0.1, seed=seed, majority=0.5) for seed in range(3)],
        ("random", 20): [outcomes(0.7, 0.4, seed=10 + seed, majority=0.5) for seed in range(3)],
        ("random", 40): [outcomes(0.9, 0.7, seed=20 + seed, majority=0.5) for seed in range(3)],
    }
    references = measure_references(experiment, [table for tables in runs.values() for table in tables])
    base = describe_gains(experiment, references, runs)
    gains = base["methods"]["random"]["gains"]
    assert [each["over"] for each in gains] == ["majority class", "majority class", "probe"]
    assert gains[0]["value"] == pytest.approx(np.mean([t["correct"].mean() for t in runs["random", 10]]) - 0.5)
    assert base["methods"]["random"]["pays_from"]["n_rows"] == 20
    assert "always naming the most frequent label" in base["methods"]["random"]["sentence"]

    runs = {("random", 100): [outcomes(0.7, 0.6, seed=seed, majority=0.8) for seed in range(3)]}
    references = measure_references(experiment, [table for tables in runs.values() for table in tables])
    base = describe_gains(experiment, references, runs)
    assert base["strongest"] == "majority class"
    assert base["methods"]["random"]["pays_from"] is None
    assert base["methods"]["random"]["sentence"].startswith("never pays here: with 100 rows, worse than always naming")


def test_without_a_probe_the_majority_class_is_the_reference(experiment):
    runs = {("random", 10): [outcomes(0.5), outcomes(0.5, seed=1)]}
    references = measure_references(experiment, [table for tables in runs.values() for table in tables])
    assert references == References(references.fixed, has_probe=False)
    assert describe_gains(experiment, references, runs)["strongest"] == "majority class"


def test_base_none_measures_nothing(experiment):
    without = replace(experiment, untouched=UntouchedSettings(base="none"))
    assert measure_references(without, [outcomes(0.5)]) is None
    assert format_row_zero(None, "accuracy") == []


def test_each_model_of_a_joint_curve_is_held_against_itself_and_prompts_of_the_same_rows(experiment):
    """A larger model that knows more untouched is no gain of training."""

    def losses(mean, seed):
        noise = np.random.default_rng(seed).normal(0, 0.05, 300)
        ids = list(map(str, range(300)))
        return pl.DataFrame({"row_id": ids, "loss": mean + noise, "n_tokens": np.ones(300, np.int64)})

    groups = {("random, model small", 8): 3.0, ("random, model large", 8): 2.0}
    own = {
        group: {"untouched": losses(base, 1), "4 in the prompt": losses(base - 0.2 * ("large" in group[0]), 2)}
        for group, base in groups.items()
    }
    whose = {group: group[0].split()[-1] for group in groups}
    references = References({}, has_probe=False, own=own, whose=whose)
    runs = {group: [losses(base - 0.1, seed) for seed in (3, 4)] for group, base in groups.items()}
    asked = replace(experiment, metric=find_metric("loss", "sft"))
    base = describe_gains(asked, references, runs)
    names = [entry["name"] for entry in base["references"]]
    assert sorted(names) == sorted(f"{name} {whom}" for name in own[next(iter(own))] for whom in ("small", "large"))
    gains = {method: entry["gains"][0] for method, entry in base["methods"].items()}
    assert gains["random, model small"]["value"] == pytest.approx(0.1, abs=0.02)
    assert gains["random, model large"]["value"] == pytest.approx(-0.1, abs=0.02)
    assert gains["random, model large"]["over"] == "4 in the prompt"
    assert base["methods"]["random, model large"]["sentence"].startswith("never pays here")
