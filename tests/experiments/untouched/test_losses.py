"""Forgetting as a third axis of a curve, and as a constraint of a search."""

import json
import math

import polars as pl
import pytest

import thresher as th
from thresher.cli.compare import summarize
from thresher.dataset import load
from thresher.evaluation.gain import Gain
from thresher.experiments.cells.cell import compute_cell_key
from thresher.experiments.experiment import load_experiment
from thresher.experiments.settings import ComparisonSettings
from thresher.experiments.tuning import choose_best
from thresher.experiments.untouched.forgetting import describe_losses, format_forgetting
from thresher.trainer.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def untouched():
    n = 200
    return pl.DataFrame(
        {"row_id": list(map(str, range(n))), "loss": [50.0 + i % 7 for i in range(n)], "n_bytes": [100] * n}
    )


def shift(before, bits, jitter):
    """Return losses that are so many bits per byte higher, with some spread between rows."""
    return [loss + 100 * math.log(2) * (bits + jitter * (-1) ** i) for i, loss in enumerate(before["loss"])]


def test_it_is_told_from_how_many_rows_on_more_is_forgotten_than_allowed(untouched):
    before = untouched
    losses = {
        ("random", 10): [shift(before, 0.001, 0.002), shift(before, 0.002, 0.001)],
        ("random", 20): [shift(before, bits, 0.01) for bits in (0.05, 0.055, 0.06)],
        ("random", 40): [shift(before, bits, 0.01) for bits in (0.09, 0.095, 0.1)],
        ("calm", 40): [shift(before, 0.001, 0.002), shift(before, 0.002, 0.001)],
    }
    section = describe_losses(before, losses, 0.02)
    random, calm = section["methods"]["random"], section["methods"]["calm"]
    assert [point["verdict"] for point in random["points"]] == ["kept", "lost", "lost"]
    assert random["points"][1]["lost"]["value"] == pytest.approx(0.055)
    assert (random["passes_at"], calm["passes_at"]) == (20, None)
    assert random["sentence"].startswith("from 20 rows on it forgets more than the allowed 0.02: worse by 0.0550")
    assert format_forgetting(section)[0].startswith("calm: with 40 rows it forgets no more than the allowed 0.02")
    assert format_forgetting(None) == []


def test_few_rows_that_are_learned_often_are_no_limit_from_which_on_more_is_forgotten(untouched):
    losses = {
        ("random", size): [shift(untouched, bits + step, 0.01) for step in (0.0, 0.001, 0.002)]
        for size, bits in ((10, 0.05), (20, 0.06), (40, 0.001))
    }
    entry = describe_losses(untouched, losses, 0.02)["methods"]["random"]
    assert entry["sentence"].startswith("with 20 rows it forgets more than the allowed 0.02: worse by 0.0610")
    assert "; with 40 rows it forgets no more than the allowed 0.02" in entry["sentence"]


def lost(value):
    return Gain(value=value, low=value, high=value, stderr=0.0, n=300, n_seeds=1)


@pytest.mark.parametrize(
    ("forgets", "winner"),
    [
        ({}, 2),
        ({0: lost(0.0), 1: lost(0.01), 2: lost(0.03)}, 1),
        ({0: lost(0.0), 1: lost(0.01), 2: lost(0.02)}, 2),
        ({0: lost(0.05), 1: lost(0.03), 2: lost(0.04)}, 1),  # all forget more: the least
    ],
)
def test_the_winner_of_a_search_forgets_no_more_than_is_allowed(forgets, winner):
    assert choose_best({0: 0.1, 1: 0.2, 2: 0.3}, forgets, 0.02) == winner


def test_the_cells_of_a_comparison_say_what_they_forget(tiny_llama, question_rows):
    settings = TrainSettings(max_steps=2, batch_size=4, max_length=128, eval_generations=0)
    options = {"methods": ["length"], "budget": ["8"], "seeds": 2, "model": tiny_llama, "settings": settings}
    result = th.compare(load(question_rows[:30]), eval=load(question_rows[30:]), general="auto", **options)
    section = result.content["general"]
    assert set(section["methods"]) == {"length", "random"}
    (point,) = section["methods"]["random"]["points"]
    assert point["n_rows"] == 8
    assert point["lost"]["n"] == section["rows"] >= 8
    assert result.content["base"]["references"][0]["name"] == "untouched"
    answer, head, *lines = summarize(result).splitlines()
    assert " test rows, 2 seeds)" in answer
    columns = head.split()
    assert columns[:4] == ["method", "rows", "loss", "forgotten"]
    values = {line.split()[0]: line.split("bits/byte")[0].split()[-1] for line in lines if "bits/byte" in line}
    lost = {name: entry["points"][0]["lost"]["value"] for name, entry in section["methods"].items()}
    assert values == {name: f"{value:+.4f}" for name, value in lost.items()}
    assert len({*lost.values()}) == 2  # a value of the wrong method would be seen
    without = th.compare(load(question_rows[:30]), eval=load(question_rows[30:]), base="none", **options)
    assert without.content["general"] is None
    assert without.content["base"] is None
    assert "forgotten" not in summarize(without)


def test_general_rows_are_measured_in_the_same_order_whatever_that_of_their_file(tiny_llama, question_rows, tmp_path):
    """A reordered file read the losses of another order from the cache, and paired them wrongly."""
    experiments = []
    for name, rows in (("a", question_rows[:20]), ("b", question_rows[:20][::-1])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = ComparisonSettings(budget=("8",), model=tiny_llama, general=str(path))
        experiments.append(load_experiment(load(question_rows[20:]), eval="20%", settings=settings))
    contexts = [each.build_context(each.pool, seed=0) for each in experiments]
    first, second = (context.general_rows[0].frame["row_id"].to_list() for context in contexts)
    assert first == second == sorted(first)
    assert compute_cell_key(contexts[0]) == compute_cell_key(contexts[1])
