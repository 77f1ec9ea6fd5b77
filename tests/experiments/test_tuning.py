import json
import shlex
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from typer.main import get_command

from thresher.cli.command import list_all_commands
from thresher.cli.commands import build_app
from thresher.cli.next_steps import suggest_after_tuning
from thresher.cli.tune import summarize
from thresher.errors import InputError, SettingsError
from thresher.experiments import tuning as tuning_module
from thresher.experiments.cells import worker_pool
from thresher.experiments.search import TrialResult
from thresher.experiments.tuning import measure_agreement, tune
from thresher.trainer.settings import TrainSettings

pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def options(pool, test_rows, tiny_bert):
    return {"data": pool, "eval": test_rows, "model": tiny_bert, "trials": 5, "finalists": 2, "checks": 1, "seeds": 2}


@pytest.fixture(scope="module")
def tuning(options, tmp_path_factory):
    return tune(**options, out=tmp_path_factory.mktemp("tune") / "out")


def test_the_first_trial_is_the_default_and_every_trial_is_listed(tuning):
    assert tuning.trials["trial"].to_list() == [0, 1, 2, 3, 4]
    assert tuning.trials["learning_rate"][0] == 1e-3
    assert tuning.trials["lora_rank"][0] == 8
    assert tuning.trials["early"].null_count() == 0


def test_the_best_early_trials_and_the_default_run_to_the_end(tuning):
    table = tuning.trials
    finals = set(table.filter(table["final"].is_not_null())["trial"])
    best = table.sort(["early", "trial"], descending=[True, False])["trial"].to_list()[:2]
    assert finals >= {0, *best}
    assert len(finals - {0, *best}) <= 1  # one drawn at random, to check the early values


def test_the_winner_is_the_best_at_the_end_and_judged_on_the_test_set(tuning):
    table = tuning.trials
    assert table["final"][tuning.content["best_trial"]] == table["final"].max()
    if tuning.content["best_trial"]:
        assert tuning.against_default.n_rows == 40
    else:
        assert tuning.content["verdict"] == "the default settings won the search"
    assert set(tuning.content["base"]["methods"]) >= {"winner"}


def test_the_untouched_model_stands_beside_default_settings_that_won(options, own_cache, monkeypatch):
    monkeypatch.setattr(tuning_module, "choose_best", lambda finals, lost, allowed: 0)
    result = tune(**options)
    assert result.content["verdict"] == "the default settings won the search"
    assert result.content["test"] is None
    base = result.content["base"]
    assert [entry["name"] for entry in base["references"]] == ["majority class", "probe"]
    (gains,) = base["methods"]["winner"]["gains"]
    assert (gains["n_seeds"], set(base["methods"])) == (2, {"winner"})
    assert any(line.startswith("winner: ") for line in summarize(result).splitlines())


def test_the_same_search_gives_the_same_trials_and_a_killed_one_goes_on(
    tuning, options, own_cache, monkeypatch, tmp_path
):
    real, n_runs = worker_pool.train_and_measure, []

    def stop_at_the_third(context, work):
        n_runs.append(context)
        if len(n_runs) == 3:
            raise KeyboardInterrupt
        return real(context, work)

    monkeypatch.setattr(worker_pool, "train_and_measure", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        tune(**options, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(worker_pool, "train_and_measure", real)
    again = tune(**options, out=tmp_path / "out")
    assert again.trials.equals(tuning.trials)


def test_trials_that_diverge_are_failed_and_never_finalists(options, own_cache, monkeypatch):
    real = worker_pool.train_and_measure

    def diverge(context, work):
        outcomes, facts = real(context, work)
        if context.settings.lora_rank != 8:
            outcomes = outcomes.with_columns(loss=pl.lit(float("nan")))
        return outcomes, facts

    monkeypatch.setattr(worker_pool, "train_and_measure", diverge)
    tuning = tune(**(options | {"metric": "loss"}))
    failed = tuning.trials.filter(pl.col("lora_rank") != 8)
    assert len(failed)
    assert set(failed["status"]) == {"failed"}
    assert failed["final"].null_count() == len(failed)


def test_agreement_counts_how_many_of_the_early_top_five_stay():
    early = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    trials = [TrialResult(settings=TrainSettings(), early=value, reason=None) for value in early]
    finals = dict(enumerate([0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.1]))
    agreement = measure_agreement(trials, finals, is_higher_better=True)
    assert agreement["top_five_kept"] == 4  # early: 2..6; at the end: 0, 2, 3, 4, 5
    assert -1 <= agreement["rank_correlation"] <= 1
    assert measure_agreement(trials, {0: 0.1, 1: 0.2, 2: 0.3}, is_higher_better=True) == {
        "n": 3,
        "rank_correlation": pytest.approx(1.0),
        "top_five_kept": None,
    }


def test_what_the_user_sets_holds_for_all_trials_alike(options, own_cache):
    notes = []
    settings = TrainSettings(max_steps=4, learning_rate=2e-3, batch_size=8, max_length=32)
    tuning = tune(**(options | {"trials": 3, "settings": settings}), on_progress=notes.append)
    assert tuning.trials["epochs"].to_list() == [None] * 3
    assert set(tuning.trials["learning_rate"]) == {2e-3}
    assert set(tuning.trials["batch_size"]) == {8}
    assert tuning.best.max_steps == 4
    assert any("steps 4)" in (event.note or "") for event in notes)
    assert "--max-steps 4" in summarize(tuning)
    # the line to go on with has the model and what the user set, once each
    words = shlex.split(" ".join(suggest_after_tuning(tuning)))
    given = {word: words[place + 1] for place, word in enumerate(words) if word.startswith("--")}
    assert (given["--model"], given["--max-length"], given["--batch-size"]) == (str(options["model"]), "32", "8")
    assert len(given) == sum(word.startswith("--") for word in words)
    known = {flag for param in list_all_commands(get_command(build_app()))["train"].params for flag in param.opts}
    assert set(given) <= known


def test_kinds_of_adapters_are_searched_and_the_winner_is_suggested_with_its_kind(options, own_cache):
    settings = TrainSettings(max_steps=2, batch_size=8, lora_rank=8)  # the default, but asked for
    tuning = tune(**(options | {"trials": 4, "settings": settings, "adapters": ("vera", "pissa")}))
    first, *others = tuning.trials["adapter"].to_list()
    assert first == "lora"
    assert set(others) <= {"vera", "pissa"}
    assert set(tuning.trials["lora_rank"]) == {8}
    assert set(tuning.trials.filter(adapter="pissa")["lora_dropout"]) <= {0.0}  # it has none
    won = replace(tuning, best=replace(tuning.best, adapter="vera"))
    assert "--adapter vera" in " ".join(suggest_after_tuning(won))
    assert "--adapter vera" in summarize(won)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"trials": 1}, SettingsError, "trials"),
        ({"trials": 2.5}, SettingsError, "whole number"),
        ({"checks": -1}, SettingsError, "checks"),
        ({"seeds": 1}, SettingsError, "seeds"),
        ({"sampler": "grid"}, SettingsError, "sampler"),
        ({"metric": "macro_f1"}, InputError, "no value per row"),
    ],
)
def test_bad_use_is_told_in_one_sentence(options, change, error, words):
    with pytest.raises(error, match=words):
        tune(**(options | change))


def test_the_finalists_are_averaged_and_compared_with_the_winner(tuning, options, tmp_path):
    again = tune(**options, average=2, out=tmp_path / "out")
    entry = again.content["average"]
    finals = again.trials.drop_nulls("final").sort(["final", "trial"], descending=[True, False])["trial"].to_list()
    assert entry["trials"] == finals[:2]
    assert entry["difference"]["n_seeds"] == 2
    assert entry["difference"]["n_rows"] == 40
    assert entry["difference"]["value"] == pytest.approx(entry["average"] - entry["winner"])
    ranks = again.trials.filter(pl.col("trial").is_in(entry["trials"]))["lora_rank"]
    config = json.loads((tmp_path / "out" / "averaged" / "adapter_config.json").read_text())
    assert config["r"] == ranks.sum()
    assert not (tmp_path / "out" / ".averaging").exists()


@pytest.mark.parametrize(
    ("average", "words"), [(1, "0 or between 2 and"), (9, "0 or between 2 and"), (True, "a whole number of at least 0")]
)
def test_an_average_of_too_few_or_too_many_is_refused(options, average, words):
    with pytest.raises(SettingsError, match=f"average must be {words}"):
        tune(**options, average=average)


def test_scores_of_trials_have_their_error_over_the_held_out_rows(tuning):
    n = tuning.content["dev_rows"]
    assert n == tuning.manifest.content["dev"]["rows"] == 12
    early = tuning.trials["early"].to_numpy()
    assert tuning.trials["early_stderr"].to_numpy() == pytest.approx(np.sqrt(early * (1 - early) / n))
    assert tuning.trials["final_stderr"].is_null().to_list() == tuning.trials["final"].is_null().to_list()


def test_the_runs_after_the_trials_are_told_too(tuning, options):
    events = []
    tune(**options, on_progress=events.append)
    n_finals = tuning.trials["final"].count()
    assert [entry.done for entry in events if entry.stage == "trials to the end"] == list(range(n_finals + 1))
    if tuning.content["best_trial"]:
        assert [entry.done for entry in events if entry.stage == "winner and default"] == list(range(5))
    assert events[0].stage == "trials"
    assert events[0].done == 0


def test_the_manifest_tells_what_it_takes_to_search_again(tuning):
    content = tuning.manifest.content
    assert content["asked"]["dev"] == "15%"
    assert {"inputs", "eval", "schema", "id_column", "overlap"} <= set(content)
    assert {"inputs", "eval"} <= set(content["run"])
