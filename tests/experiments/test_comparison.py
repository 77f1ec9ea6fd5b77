from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from thresher.cli.compare import summarize
from thresher.dataset import load
from thresher.errors import InputError, NotFoundError, SettingsError
from thresher.evaluation.effect import Effect, adjust_p_values, describe_effect, estimate_effect
from thresher.evaluation.metric import NATS, POINTS
from thresher.experiments.comparison import compare, compute_net_effect
from thresher.experiments.rankings import choose_methods, has_columns
from thresher.selectors.herding import Herding
from thresher.selectors.k_center import KCenter

HERDING = {"methods": "herding", "budget": [16, 32], "seeds": 3, "encoder": "static"}


@pytest.fixture(scope="module")
def comparison(run_comparison, tmp_path_factory):
    return run_comparison(**HERDING, out=tmp_path_factory.mktemp("compare") / "out")


def test_random_and_length_are_always_there(comparison):
    assert set(comparison.cells["method"]) == {"random", "length", "herding"}
    assert {(v.method, v.n_rows) for v in comparison.verdicts} == {
        (m, n) for m in ("herding", "length") for n in (16, 32)
    }


def test_effects_are_those_of_the_outcomes(comparison):
    table = pl.read_parquet(comparison.path / "outcomes.parquet").with_columns(pl.col("correct").cast(pl.Float64))
    sides = {}
    for method in ("herding", "random"):
        runs = table.filter((pl.col("method") == method) & (pl.col("n_rows") == 16)).sort("seed", "row_id")
        sides[method] = np.stack(
            [part["correct"].to_numpy() for part in runs.partition_by("seed", maintain_order=True)]
        )
    # the rows that two seeds' choices share beyond chance, on average over both sides
    picks, n_pool = pl.read_parquet(comparison.path / "picks.parquet"), comparison.manifest.content["pool"]["rows"]
    overlaps = []
    for method in sides:
        own = picks.filter((pl.col("method") == method) & (pl.col("rank") <= 16))
        chosen = []
        for seed in range(3):  # the choice of 16 is one of its own, or begins that of 32
            part = own.filter(pl.col("seed") == seed)
            chosen.append(set(part.filter(pl.col("n_rows") == pl.col("n_rows").min())["row_id"]))
        assert {len(each) for each in chosen} == {16}
        share = np.mean([len(chosen[i] & chosen[j]) / 16 for i, j in ((0, 1), (0, 2), (1, 2))])
        overlaps.append(max(0, (share - 16 / n_pool) / (1 - 16 / n_pool)))
    shared = min(np.mean(overlaps), 0.95)
    wanted = estimate_effect(sides["herding"], sides["random"], is_higher_better=True, shared=shared)
    effect = next(v for v in comparison.verdicts if (v.method, v.n_rows) == ("herding", 16)).effect
    assert shared > 0
    assert (effect.value, effect.stderr, effect.p) == pytest.approx((wanted.value, wanted.stderr, wanted.p))


def test_verdicts_are_corrected_for_their_number(comparison):
    assert [v.p_holm for v in comparison.verdicts] == pytest.approx(
        adjust_p_values([v.effect.p for v in comparison.verdicts])
    )


def test_all_cells_of_a_budget_have_the_same_steps(comparison):
    steps = comparison.cells.group_by("n_rows").agg(pl.col("steps").n_unique())
    assert set(steps["steps"]) == {1}


def test_a_comparison_is_drawn_with_a_line_for_each_verdict(comparison):
    (ax,) = comparison.plot().axes
    labels = {label.get_text() for label in ax.get_yticklabels()}
    assert labels == {f"{v.method}, {v.n_rows} rows" for v in comparison.verdicts}


def test_the_folder_is_read_back(run_comparison, comparison):
    again = run_comparison(**HERDING, out=comparison.path)
    assert again.verdicts == comparison.verdicts


def test_selectors_and_functions_are_compared_like_names(pool, test_rows, tiny_bert, quick):
    def shortest(length):
        return -length

    options = {"eval": test_rows, "budget": 16, "seeds": 2, "model": tiny_bert, "settings": quick, "encoder": "static"}
    comparison = compare(pool, methods=[Herding(), shortest], **options)
    assert {v.method for v in comparison.verdicts} == {"herding", "shortest", "length"}
    settings = comparison.manifest.content["method_settings"]
    assert settings["herding"] == {}
    assert set(settings["shortest"]) == {"function"}
    by_name = compare(pool, methods="herding", **options)
    assert [v for v in comparison.verdicts if v.method == "herding"][0].effect.value == next(
        v for v in by_name.verdicts if v.method == "herding"
    ).effect.value


def test_two_methods_of_one_name_are_refused(pool, test_rows):
    def random(length):
        return length

    for methods in (["k-center", KCenter(metric="euclidean")], random):
        with pytest.raises(InputError, match="each method needs a name of its own"):
            compare(pool, eval=test_rows, methods=methods)
    with pytest.raises(InputError, match="the settings of k-center are those of the selector"):
        compare(pool, eval=test_rows, methods=[KCenter()], method_settings={"k-center": {"metric": "cosine"}})


def outcome(**changes):
    values = {"value": 0.012, "low": 0.004, "high": 0.02, "stderr": 0.004, "dof": 9.0, "p": 0.01, "detectable": 0.008}
    return Effect(**(values | {"n_rows": 100, "n_seeds": 5} | changes))


def test_verdicts_are_plain_words():
    assert describe_effect(outcome(), 0.01, POINTS) == "better by 1.2 points [0.4, 2.0]"
    assert (
        describe_effect(outcome(value=-0.012, low=-0.02, high=-0.004), 0.01, POINTS) == "worse by 1.2 points [0.4, 2.0]"
    )
    assert describe_effect(outcome(), 0.2, POINTS) == "no clear difference; one of 0.8 points would likely have shown"
    assert describe_effect(outcome(), 0.01, NATS) == "better by 0.012 nats [0.004, 0.020]"


def test_words_keep_the_sign_of_the_interval_and_say_nothing_it_does_not():
    beyond = outcome(value=-0.357, low=-0.669, high=0.022)
    assert describe_effect(beyond, 0.045, POINTS).startswith("no clear difference")
    same = outcome(value=0.0, low=0.0, high=0.0, stderr=0.0, detectable=0.0)
    assert describe_effect(same, 1.0, POINTS) == "no difference at all: both gave the same answers"


class Scores:
    """Stands for an experiment runner whose random rows score 0.5, 0.6, 0.7 at 100, 200, 400."""

    def __init__(self, sizes):
        self.outcomes = {("random", size, 0): None for size in sizes}
        self.experiment = type("Experiment", (), {"metric": type("Metric", (), {"is_higher_better": True})})

    def compute_mean(self, _, size):
        return 0.5 + 0.1 * np.log2(size / 100)


def test_net_of_selection_takes_off_what_random_would_gain_in_the_same_time():
    net = compute_net_effect(Scores([100, 200, 400]), outcome(), 200, select_seconds=10.0, train_seconds=10.0)
    assert net["random_rows"] == 400
    assert net["value"] == pytest.approx(0.012 - 0.1)
    free = compute_net_effect(Scores([100, 200]), outcome(), 200, select_seconds=0.0, train_seconds=10.0)
    assert free["value"] == pytest.approx(0.012)
    bent = Scores([100, 200, 400])
    bent.compute_mean = lambda _, size: {100: 0.5, 200: 0.6, 400: 0.62}[size]
    both = compute_net_effect(bent, outcome(), 100, select_seconds=30.0, train_seconds=10.0)
    assert both["value"] == pytest.approx(0.012 - 0.12)
    assert compute_net_effect(Scores([200]), outcome(), 200, select_seconds=1.0, train_seconds=10.0) is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"seeds": 1}, SettingsError, "at least 2"),
        ({"seeds": 2.5}, SettingsError, "whole number"),
        ({"methods": "random"}, InputError, "besides random"),
        ({"methods": "herdin"}, NotFoundError, "herding"),
        ({"budget": "200ktok"}, InputError, "rows or a share"),
        ({"budget": 5000}, InputError, "at most"),
        ({"methods": "herding quota"}, InputError, "methods: must be METHOD"),
        ({"methods": "herding#0"}, InputError, "methods: must be METHOD"),
        ({"methods": "herding quota=label=most"}, InputError, "quota: must be COLUMN"),
        ({"methods": "auto quota=label"}, InputError, "auto takes no quota"),
        ({"methods": "herding balance=sqrt"}, SettingsError, "balance"),
        ({"redraw": 0.0}, SettingsError, "redraw"),
        ({"detect": 0.0}, SettingsError, "detect"),
        ({"method_settings": {"herdin": {}}}, SettingsError, "herdin"),
    ],
)
def test_bad_use_is_told_in_one_sentence(run_comparison, options, error, words):
    with pytest.raises(error, match=words):
        run_comparison(**({"methods": "herding", "budget": 16} | options))


def test_a_comparison_that_could_not_see_anything_names_no_impossible_difference():
    sentence = describe_effect(outcome(detectable=4.5), 0.2, POINTS)
    assert sentence == "no clear difference; so few runs and test rows could not have shown any"
    assert "4.500 nats" in describe_effect(outcome(detectable=4.5), 0.2, NATS)


def test_all_leaves_out_what_asks_a_model_or_a_column_that_is_not_there():
    names = choose_methods("all", {}, {})
    assert {"random", "length", "facility-location", "max-coverage", "stratified"} <= set(names)
    assert not {"perplexity", "gradient", "confidence"} & set(names)
    conversations = load([{"instruction": "say", "output": "red", "half": 1}])
    assert not has_columns("stratified", {}, conversations)
    assert has_columns("stratified", {"stratified": {"by": "half"}}, conversations)
    assert has_columns("facility-location", {}, conversations)


def test_the_manifest_tells_what_was_asked_and_not_the_steps_of_the_last_budget(comparison):
    content = comparison.manifest.content
    assert content["settings"]["max_steps"] is None
    assert content["settings"]["epochs"] == 1
    assert content["overlap"] == "refuse"
    assert content["method_settings"] == {}


GAP = {"difference": {"value": 0.1, "low": -0.1, "high": 0.3, "n_seeds": 2, "detectable": 0.3}}


@pytest.mark.parametrize("is_higher_better", [True, False])
def test_the_best_method_stands_first_and_two_seeds_are_told_to_be_few(is_higher_better):
    values = [
        {"method": name, "n_rows": 10, "value": value, "stderr": 0.1, "n_seeds": 2}
        for name, value in (("random", 2.0), ("herding", 1.0), ("length", 3.0))
    ]
    content = {"metric": "loss", "is_higher_better": is_higher_better, "baseline": "random", "values": values}
    verdict = SimpleNamespace(
        method="herding", n_rows=10, sentence="so", effect=outcome(n_seeds=2), select_seconds=1.0, train_seconds=1.0,
        seeds_needed=None, others={}, p_holm=1.0,
    )  # fmt: skip
    content["verdicts"] = [{"method": "herding", "n_rows": 10, "p_holm": 1.0, "sentence": "so"} | GAP]
    cells = pl.DataFrame({"n": [None, 40], "value": [None, 2.0]})
    rest = {"cells": cells, "manifest": SimpleNamespace(content={"asked": {"detect": 0.01}})}
    text = summarize(SimpleNamespace(content=content | {"failed": []}, verdicts=(verdict,), path=None, **rest))
    answer = "No method beats random here; any difference of 0.300 or more would have shown (40 test rows, 2 seeds)."
    assert text.splitlines()[0] == answer
    order = [line.split()[0] for line in text.splitlines()[2:5]]
    assert order == (["length", "random", "herding"] if is_higher_better else ["herding", "random", "length"])
    assert "fewer than 3 seeds" in text
    assert "over 40 test rows" in text
    assert "it takes more test rows to see a difference of 0.01" in text


def test_equal_methods_are_compared_and_other_metrics_told_where_classes_are_uneven(
    pool_rows, test_rows, tiny_bert, quick
):
    uneven = [row for row in pool_rows[:80] if row["label"] == "red" or int(row["text"].split()[-1]) % 3 == 0]
    options = {"eval": test_rows, "budget": 8, "seeds": 2, "model": tiny_bert, "settings": quick, "encoder": "static"}
    comparison = compare(load(uneven), methods="random#2, herding quota=label", **options)
    assert {v.method for v in comparison.verdicts} == {"random#2", "herding quota=label", "length"}
    for verdict in comparison.verdicts:
        assert set(verdict.others) == {"macro_f1", "balanced_accuracy"}
        assert -1 <= verdict.others["macro_f1"]["difference"]["value"] <= 1
    # Holm's procedure by hand: the p-values of all three metrics are one family for the others
    own = [verdict.effect.p for verdict in comparison.verdicts]
    rest = [
        each for name in ("macro_f1", "balanced_accuracy") for v in comparison.verdicts for each in [v.others[name]]
    ]
    p = np.array([*own, *(each["difference"]["p"] for each in rest)])
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(9, 0, -1)))
    expected = dict(zip(order.tolist(), steps.tolist(), strict=True))
    assert [each["p_holm"] for each in rest] == pytest.approx([expected[i] for i in range(3, 9)])
    assert [v.p_holm for v in comparison.verdicts] == pytest.approx(adjust_p_values(own))
    assert "in macro F1, random#2, 8 rows: " in summarize(comparison)


def test_methods_are_compared_in_macro_f1(run_comparison):
    comparison = run_comparison(methods="herding", budget=16, seeds=2, metric="macro_f1", encoder="static")
    table = {v.method: v for v in comparison.verdicts}
    cells = comparison.cells.group_by("method").agg(pl.col("value").mean())
    means = dict(cells.iter_rows())
    assert table["herding"].effect.value == pytest.approx(means["herding"] - means["random"])
