"""A dry run: it has the counts of the run, times near those of the run, and writes nothing."""

import inspect
import json
import time

import numpy as np
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError
from thresher.features import FeatureCache, FeatureContext, cost, make_context, ngram
from thresher.features.cost import estimate, merge_costs
from thresher.features.likelihood.loss import Loss
from thresher.features.registry import FeatureProvider
from thresher.models.stages import StageCost
from thresher.numeric.units import format_bytes, format_duration
from thresher.selection.dry_run import describe_cost
from thresher.selectors import create

ROWS = [{"prompt": f"add {i} and {i % 7}:" + " please" * (i % 9), "completion": f"{i + i % 7}"} for i in range(120)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


def planned(method, rows=ROWS, **options):
    return th.plan(rows, method, budget=10, device="cpu", **options)


def stage(plan, name):
    return next(each for each in plan.stages if each.stage == name)


def test_plan_takes_what_select_takes_but_for_where_the_work_and_the_result_go():
    ours, theirs = inspect.signature(th.plan).parameters, inspect.signature(th.select).parameters
    assert set(theirs) - set(ours) == {"out", "force", "engine", "address", "partitions"}
    assert all(ours[name].default == theirs[name].default for name in ours)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("random", {}),
        ("length", {}),
        ("facility-location", {}),
        ("difficulty", {}),
        ("learnability", {}),
        ("delift", {"neighbors": "4"}),
        ("quality-diversity", {"quality": "loss"}),
    ],
)
def test_every_kind_of_method_can_be_planned_and_nothing_is_written(method, settings, tiny_llama, tmp_path):
    made = planned(method, model=str(tiny_llama), settings=settings)
    assert not (tmp_path / "cache").exists()
    assert made.n_rows == 120
    assert made.n_kept == 10
    assert made.seconds is not None
    assert made.memory_bytes > 10_000_000
    assert str(made).startswith(f"{method}: 10 rows of 120")
    assert "nothing was written" in str(made)
    assert "comes on top" not in str(made), "what is counted above would count twice"


@pytest.mark.parametrize("method", ["facility-location", "saturated-coverage", "graph-cut"])
def test_the_pairs_that_a_method_holds_are_in_the_memory_foretold(method, monkeypatch):
    """A kernel of 2 GB was left out: the account ended with the features."""
    monkeypatch.setattr("thresher.selection.dry_run.get_peak_bytes", lambda: 0)
    rows = [*ROWS, ROWS[0]]
    made = planned(method, rows, encoder="static")
    expected = create(method).estimate_memory(len(rows), len(ROWS), 256)
    assert made.memory_bytes - sum(stage.bytes for stage in made.stages) == expected


def test_counting_words_is_told_and_not_done(monkeypatch):
    counted = []
    real = ngram.ngram_counts
    monkeypatch.setattr(ngram, "ngram_counts", lambda text: counted.append(text) or real(text))
    monkeypatch.setattr(cost, "PROBE_ROWS", 10)
    made = planned("feature-based")
    assert stage(made, "ngram").n == len(ROWS)
    assert made.seconds > 0
    assert len(counted) == 10


def test_the_tokens_foretold_are_those_that_are_read(tiny_llama):
    made = planned("perplexity", model=str(tiny_llama))
    foretold = stage(made, "loss").tokens
    context = make_context(model=str(tiny_llama), device="cpu", cache=None)
    provider = Loss()
    provider.compute(th.load(ROWS), context)
    read = provider._lm.n_tokens
    assert foretold == pytest.approx(read, rel=0.1)


def test_pairs_are_counted_and_their_tokens_foretold_within_a_quarter(tiny_llama):
    from thresher.models.causal_lm.language_model import language_model

    made = planned("delift", model=str(tiny_llama), settings={"neighbors": "6"})
    pairs = stage(made, "in_context_utility")
    assert pairs.n == 120 * 7 + 120  # itself and 6 neighbors, and each row without an example
    lm = language_model(str(tiny_llama), device="cpu")
    before = lm.n_tokens
    th.select(ROWS, "delift", budget=10, device="cpu", model=str(tiny_llama), settings={"neighbors": "6"})
    assert pairs.tokens == pytest.approx(lm.n_tokens - before, rel=0.25)


def test_what_is_cached_costs_nothing(tiny_llama):
    options = {"model": str(tiny_llama)}
    th.select(ROWS[:40], "perplexity", budget=10, device="cpu", **options)
    made = stage(planned("perplexity", **options), "loss")
    assert (made.n, made.n_cached, made.n_to_do) == (120, 40, 80)
    th.select(ROWS, "perplexity", budget=10, device="cpu", **options)
    done = planned("perplexity", **options)
    assert stage(done, "loss").n_to_do == 0
    assert done.seconds == 0
    assert done.disk_bytes == 0


def test_a_dry_run_does_not_count_as_a_use_of_the_cache(tiny_llama):
    th.select(ROWS, "perplexity", budget=10, device="cpu", model=str(tiny_llama))
    before = {path: path.stat().st_mtime_ns for path in FeatureCache().root.rglob("*")}
    planned("perplexity", model=str(tiny_llama))
    assert {path: path.stat().st_mtime_ns for path in FeatureCache().root.rglob("*")} == before


def test_training_that_is_needed_is_told_and_what_is_trained_costs_nothing(tiny_llama):
    made = planned("learnability", model=str(tiny_llama))
    (trial,) = made.training
    assert trial.n_steps == sum(-(-n // 16) for n in (len(ROWS) - 60, 60)) or trial.n_steps in (8, 9)
    assert trial.seconds > 0
    assert "trains 2 adapters" in str(made)
    th.select(ROWS, "learnability", budget=10, device="cpu", model=str(tiny_llama))
    from thresher.selection.pool_adapters import get_adapter_cache

    (folder,) = [path for path in get_adapter_cache().root.iterdir() if not path.name.startswith(".")]
    facts = json.loads((folder / "trained.json").read_text())["adapters"]
    assert trial.n_steps == sum(each["steps"] for each in facts)
    assert trial.tokens == sum(each["tokens"] for each in facts)
    weights = sum((folder / each["folder"] / "adapter_model.safetensors").stat().st_size for each in facts)
    assert trial.bytes == pytest.approx(weights, rel=0.2)
    done = planned("learnability", model=str(tiny_llama))
    assert done.training[0].n_steps == 0
    assert done.seconds == 0


def test_rows_beside_the_pool_are_estimated_too(tiny_llama):
    made = planned("facility-location", existing=ROWS[:30], encoder="static")
    assert stage(made, "existing: embedding").n == 30


class Slow(FeatureProvider):
    """A feature of a plug-in that knows nothing of the cache."""

    name = "slow"
    n_computed = 0

    def describe(self, context):
        return {}

    def compute(self, dataset, context):
        time.sleep(0.002 * len(dataset))
        Slow.n_computed += len(dataset)
        return np.zeros(len(dataset))


def test_a_feature_that_knows_no_cache_is_tried_on_a_few_rows():
    Slow.n_computed = 0
    (made,) = estimate(Slow(), th.load(ROWS), FeatureContext())
    assert Slow.n_computed == 64
    assert 0.2 < made.seconds < 0.6  # 120 rows of 2 ms
    assert "64 rows" in made.note


class Declared(Slow):
    def estimate_cost(self, dataset, context):
        return [StageCost(stage="slow", n=len(dataset), n_cached=0, seconds=1.5)]


def test_a_feature_may_say_itself_what_it_costs():
    (made,) = estimate(Declared(), th.load(ROWS), FeatureContext())
    assert made.seconds == 1.5


def test_steps_add_up_and_what_is_not_known_stays_unknown():
    one = StageCost(stage="a", n=10, n_cached=4, seconds=1.0, tokens=100, bytes=5)
    two = StageCost(stage="b", n=3, n_cached=0, seconds=None)
    both = merge_costs("both", [one, two])
    assert (both.n, both.n_cached, both.seconds, both.tokens, both.bytes) == (13, 4, None, 100, 5)


def test_the_command_prints_the_plan_and_makes_no_folder(tmp_path, capsys):
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = ["select", str(pool), "--method", "k-center", "--encoder", "static", "--budget", "5", "--quiet"]
    assert main([*command, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    assert "k-center: 5 rows of 120" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*command, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["stage"] == "embedding"


def test_the_cost_of_a_method_is_read_off_its_docstring():
    from thresher.selectors import create

    told = describe_cost(create("learnability"))
    assert told.startswith("two passes of a model over the rows")
    assert "Needs" not in told


def test_amounts_are_told_in_fitting_units():
    assert [format_duration(s) for s in (0.44, 12.4, 600, 9000)] == ["0.4 s", "12 s", "10 min", "2.5 h"]
    assert [format_bytes(n) for n in (12, 12_300, 4_560_000, 7_800_000_000)] == ["12 B", "12.3 kB", "4.6 MB", "7.8 GB"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1#none", "http://127.0.0.1:9/v1"])
def test_a_server_is_not_asked_and_the_requests_are_counted(address):
    made = planned("confidence", model=address, encoder="static", settings={"n_samples": 3})
    assert made.seconds is None
    assert "a server, which is not contacted" in str(made)
    assert stage(made, "confidence: answers").n == 3 * 120
    assert stage(made, "confidence: reflection").n == 2 * 120


@pytest.mark.parametrize("method", ["perplexity", "difficulty", "learnability", "novelty"])
def test_a_dry_run_refuses_a_server_where_the_run_would(method):
    for run in (th.plan, th.select):
        with pytest.raises(InputError, match="which a server does not give"):
            run(ROWS, method, budget=10, model="http://127.0.0.1:9/v1#none")
