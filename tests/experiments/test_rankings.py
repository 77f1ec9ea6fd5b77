"""Rankings of methods that train before they rank: with the experiment's model, for each seed."""

from types import SimpleNamespace

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.experiments import rankings
from thresher.experiments.experiment import load_experiment
from thresher.experiments.own.method_file import list_methods
from thresher.experiments.paired_runs import estimate_overlap
from thresher.experiments.rankings import MethodName, Rankings
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import MethodExperimentSettings
from thresher.selection.pool_adapters import get_adapter_cache
from thresher.selectors.pilot.race import Race


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
    with ExperimentRunner.open(load_experiment(rows, eval="20%", settings=settings), settings) as runner:
        asked = runner.rankings.options.get("model")
    # a classifier gives no likelihoods
    assert asked == (str(tiny_llama) if kind == "questions" else None)


def test_a_method_is_named_with_settings_quota_and_number():
    assert MethodName.parse("random#2") == MethodName(name="random", settings={}, quota=None, number=2)
    method = MethodName.parse("facility-location quota=label=sqrt")
    assert (method.name, method.quota, method.settings) == ("facility-location", "label=sqrt", {})
    assert MethodName.parse("prototypes balance=balanced").build({"prototypes": {"doubtful": "ignore"}}).settings() == {
        **th.selectors.create("prototypes").settings(),
        "balance": "balanced",
        "doubtful": "ignore",
    }


def test_commas_inside_a_quota_do_not_divide_methods():
    names = ["herding quota=source:web=70%", "forum=30%", " random#2", "  stratified  by=label"]
    expected = ["random", "herding quota=source:web=70%,forum=30%", "random#2", "stratified by=label"]
    assert list_methods(names, "compare") == expected


def test_a_quota_is_kept_and_a_repetition_draws_anew(color_rows):
    rankings = Rankings(pool=th.load(color_rows), options={"encoder": "static", "device": "cpu"})
    labels = rankings.pool.frame["response"]
    balanced = rankings.rank("random quota=label=balanced", 12, seed=0)
    counts = labels.gather(balanced.rows[:12]).value_counts()["count"]
    assert counts.max() - counts.min() <= 1
    first, second = (rankings.rank(name, 12, seed=0).rows for name in ("random", "random#2"))
    assert not np.array_equal(first, second)


def test_each_seed_draws_its_pool_whatever_the_order_of_the_file(color_rows):
    options = {"encoder": "static", "device": "cpu"}
    pool, turned = th.load(color_rows), th.load(color_rows[::-1])
    rankings = Rankings(pool=pool, options=options, redraw=0.8)
    n = len(pool)
    choices = [rankings.rank("length", n // 5, seed=seed).rows[: n // 5] for seed in range(4)]
    assert len({tuple(rows) for rows in choices}) > 1
    assert estimate_overlap(choices, n) > 0.4  # it does not draw
    choices = [rankings.rank("herding", n // 5, seed=seed).rows[: n // 5] for seed in range(4)]
    again = Rankings(pool=turned, options=options, redraw=0.8).rank("herding", n // 5, seed=2).rows[: n // 5]
    ids, turned_ids = (rows.frame["row_id"] for rows in (pool, turned))
    assert ids.gather(choices[2]).to_list() == turned_ids.gather(again).to_list()
    assert len(Rankings(pool=pool, options=options, redraw=0.8).rank("herding", n, seed=0).rows) == n


def open_rankings(n=1000, redraw=0.8):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(n)]
    return Rankings(pool=th.load(rows), options={"encoder": "static", "device": "cpu"}, redraw=redraw)


def test_no_budget_makes_a_method_choose_all_that_is_drawn_or_changes_the_draw_of_another():
    rankings = open_rankings()
    drawn = {n: rankings.count_drawn(n) for n in (100, 500, 600, 800, 900, 1000)}
    assert drawn == {100: 800, 500: 800, 600: 800, 800: 900, 900: 950, 1000: 1000}
    assert open_rankings(redraw=1.0).count_drawn(100) == 1000
    alone = open_rankings().rank("length", 100, seed=3, largest=100).rows[:100]
    beside = [rankings.rank("length", n, seed=3, largest=900).rows[:n] for n in (100, 500, 900)]
    assert beside[0].tolist() == alone.tolist()
    assert beside[1][:100].tolist() == alone.tolist()
    # 90 %: rows that random takes and length leaves out, and the other way round
    other = rankings.rank("random", 900, seed=3, largest=900).rows[:900]
    assert len(set(other) - set(beside[2])) > 20


def test_auto_decides_at_each_size_and_not_at_the_largest(monkeypatch):
    shares = []

    class Seen(Race):
        def run(self, is_doubtful):
            shares.append(self._share)
            raise StopIteration

    monkeypatch.setattr("thresher.selectors.auto.Race", Seen)
    rankings = open_rankings(60, redraw=1.0)
    for n_rows in (6, 30):
        with pytest.raises(StopIteration):
            rankings.rank("auto", n_rows, seed=0, largest=60)
    with pytest.raises(StopIteration):
        rankings.rank("auto share=0.2", 6, seed=0, largest=30)
    assert shares == [0.1, 0.5, 0.2]
    assert len(rankings.rank("auto", 60, seed=0, largest=60).rows) == 60


def test_random_choices_overlap_by_chance_alone():
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(1000)[:300] for _ in range(5)]
    assert estimate_overlap(drawn, 1000) < 0.05
    assert estimate_overlap([drawn[0]] * 3, 1000) == pytest.approx(1.0)
    assert estimate_overlap([np.arange(10)] * 2, 10) == 0.0


def test_a_method_that_ranks_too_few_rows_says_how_many_can_be_asked_for(pool, monkeypatch):
    monkeypatch.setattr(rankings, "select", lambda *_, **__: SimpleNamespace(kept=np.arange(11)))
    with pytest.raises(InputError, match="length: ranks only 11 rows, and 13 are needed; ask for at most 11, or leave"):
        Rankings(pool, {}).rank("length", 13, seed=0)
