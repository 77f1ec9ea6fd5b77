"""The line that ends a summary: what to type next, with the paths and numbers of this result."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thresher.artifacts.result import Result
    from thresher.experiments.bases.rank import BaseRanking
    from thresher.experiments.bases.sources import SourceRanking
    from thresher.experiments.bases.transfer import Transfer
    from thresher.experiments.comparison import Comparison
    from thresher.experiments.curve import LearningCurve
    from thresher.experiments.tuning import Tuning


# what a search chooses, and `suggest_after_tuning` names
SEARCHED = frozenset(
    {"adapter", "learning_rate", "lora_rank", "lora_alpha", "lora_dropout", "batch_size"}
    | {"epochs", "max_steps", "min_steps"}
)
# what depends on the machine, or on what an experiment measures
NOT_TYPED = frozenset({"precision", "device", "eval_generations", "metric", "metric_limit"})

HURTS = "next: check rows, model and training settings first: training made the score worse at every number of rows"


def suggest_training(rows: str | Path, *options: str) -> str:
    """Return the line that names training on rows."""
    return f"next: thresher train {shlex.quote(str(rows))}{_join(options)} --eval ROWS --out adapter"


def suggest_selection(rows: str | Path, budget: str | int, *options: str) -> str:
    """Return the line that names a selection of so many rows."""
    return f"next: thresher select {shlex.quote(str(rows))}{_join(options)} --budget {budget} --out chosen"


def suggest_after_curve(curve: LearningCurve) -> list[str]:
    """Return what a curve's answer asks for: the rows that are enough, or all of them."""
    from thresher.experiments.curve_io import find_leader
    from thresher.experiments.settings import BASELINE

    enough = {method: each for method, each in curve.enough.items() if method in curve.fits}
    if not enough:
        is_whole = curve.content.get("cost_share", 1) >= 1
        return [] if is_whole else ["next: the same command with --grid; the runs that are done are not run again"]
    method = find_leader(enough, curve.fits)
    # of a curve with a second factor, the leader is a method at one model or rank
    variant = curve.manifest.content.get("asked", {}).get("variants", {}).get(method)
    answer, name = enough[method], method if variant is None else variant["method"]
    if _hurts_everywhere(curve, [method]):
        return [HURTS]
    if answer.unit != "rows" or (variant is None and name not in (BASELINE, *curve.content["methods"])):
        return []
    if answer.verdict == "all":
        return [suggest_training(_find_pool(curve), *_spell_reading(curve), *_list_leader_options(curve, variant))]
    if answer.verdict == "enough":
        return [suggest_selection(_find_pool(curve), answer.high, *_spell_reading(curve), _spell_method(name))]
    return []


def _hurts_everywhere(result: Comparison | LearningCurve, methods: Collection[str]) -> bool:
    """Tell whether each number of rows by each method is clearly worse than no training."""
    by_method = (result.content.get("base") or {}).get("methods", {})
    gains = [gain for method in methods for gain in by_method.get(method, {}).get("gains", ())]
    return bool(gains) and all(gain["high"] is not None and gain["high"] < 0 for gain in gains)


def _list_leader_options(curve: LearningCurve, variant: Mapping[str, str] | None) -> list[str]:
    """Return the options of the training of a curve's leader, with its model or rank."""
    if variant is None:
        return _list_given(curve)
    if variant["factor"] == "model":
        return [f"--model {shlex.quote(variant['value'])}", *_list_given(curve, {"model"})]
    return [*_list_given(curve, {"lora_rank"}), f"--lora-rank {variant['value']}"]


def suggest_after_comparison(comparison: Comparison) -> list[str]:
    """Return the selection by the method that is clearly better than random, or by random.

    Of two sides that were given, as with grown rows, there is no method to name.
    """
    from thresher.evaluation.effect import is_clear
    from thresher.experiments.settings import BASELINE

    if comparison.content.get("baseline", BASELINE) != BASELINE:
        return []
    better = [v for v in comparison.verdicts if v.effect.value > 0 and is_clear(v.effect, v.p_holm)]
    if better:
        best = max(better, key=lambda verdict: verdict.effect.value)
        return [_suggest_method(comparison, best.n_rows, best.method)]
    if _hurts_everywhere(comparison, [entry["method"] for entry in comparison.content.get("values", ())]):
        return [HURTS]
    budget = max(comparison.content.get("budgets", ()), default=None)
    return [] if budget is None else [_suggest_method(comparison, budget, BASELINE)]


def suggest_after_tuning(tuning: Tuning) -> list[str]:
    """Return the training with the settings that won; none where the default did."""
    from thresher.experiments.search import describe_length

    best = tuning.best
    options = [] if best.adapter == "lora" else [f"--adapter {best.adapter}"]
    options += [f"--learning-rate {best.learning_rate:.3g}", f"--lora-rank {best.lora_rank}"]
    options += [f"--lora-alpha {best.lora_alpha:g}", f"--lora-dropout {best.lora_dropout:.3g}"]
    options += [f"--batch-size {best.batch_size}", describe_length(best, prefix="--")]
    options += [f"--min-steps {best.min_steps}"] if (best.min_steps or 1) > 1 else []
    given = [*_spell_reading(tuning), *_list_given(tuning, SEARCHED)]
    return [suggest_training(_find_pool(tuning), *given, *options)]


def _list_given(result: Tuning | LearningCurve, left_out: Collection[str] = ()) -> list[str]:
    """Return the options of the training that differ from the defaults, as they are typed.

    Args:
        result: of an experiment.
        left_out: settings, and "model", that are named otherwise.
    """
    from thresher.models.causal_lm.embedded import SMOLLM2_NAME
    from thresher.trainer.engine.load_model import MINILM
    from thresher.trainer.settings import TrainSettings

    content = result.manifest.content
    settings = content.get("settings")
    if not settings:  # a trainer of the user's own
        return []
    name, plain = (content["model"] or {}).get("name"), TrainSettings().resolved(content["task"]).to_json()
    default = MINILM if content["task"] == "classification" else SMOLLM2_NAME
    options = [] if name in (None, default) or "model" in left_out else [f"--model {shlex.quote(name)}"]
    if "min_steps" in plain and "min_steps" not in settings:
        plain.pop("epochs", None)  # epochs were asked for: without them, least steps would count
    for setting, value in settings.items():
        if value in (None, plain.get(setting)) or setting in (*left_out, *NOT_TYPED):
            continue
        flag = setting.replace("_", "-")
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        options.append(f"--{flag}" if value is True else f"--{flag} {shlex.quote(text)}")
    return options


def suggest_after_ranking(ranking: BaseRanking) -> list[str]:
    """Return the training of the first base that takes an adapter; none where no one does."""
    left_out = {"static", *(ranking.content["confirmed"] or {}).get("left_out", ())}
    first = next((model for model in ranking.table["model"] if model not in left_out), None)
    if first is None:
        return []
    return [suggest_training(_find_pool(ranking), *_spell_reading(ranking), f"--model {shlex.quote(first)}")]


def suggest_after_sources(ranking: SourceRanking) -> list[str]:
    """Return the search for the best shares with data sets that help, or training without them."""
    own = _find_pool(ranking)
    helping = {each["candidate"] for each in ranking.content["verdicts"] if each["verdict"] == "better"}
    paths = [path for path in ranking.manifest.content["run"].get("candidate", ()) if Path(path).name in helping]
    if not paths:
        return [suggest_training(own, *_spell_reading(ranking))]
    words = "".join(f" --source {shlex.quote(path)}" for path in (own, *paths))
    return [f"next: thresher mix{words} --eval ROWS --out mix"]


def suggest_after_transfer(transfer: Transfer) -> list[str]:
    """Return the selection by a method that is better than random on the largest model."""
    better = [each for each in transfer.content["methods"] if each["verdict"] == "better"]
    best = max(better, key=lambda each: float(each["effects"][-1]["value"]), default=None)
    if best is None:
        budget = max(each["n_rows"] for each in transfer.content["methods"])
        return [_suggest_method(transfer, budget, "random")]
    return [_suggest_method(transfer, best["n_rows"], best["method"])]


def suggest_report(folder: str | Path) -> str:
    """Return the line that names the page of a folder."""
    return f"next: thresher report {shlex.quote(str(folder))}"


def _suggest_method(result: Result, budget: str | int, method: str) -> str:
    """Return the line that names a selection by a method from the rows of a result."""
    return suggest_selection(_find_pool(result), budget, *_spell_reading(result), _spell_method(method))


def _spell_method(label: str) -> str:
    """Return the options of `select` for a method with settings, as `compare` names it."""
    name, *settings = label.split()
    options = [f"--method {name.partition('#')[0]}"]
    for setting in settings:
        key, _, value = setting.partition("=")
        options.append(f"--quota {shlex.quote(value)}" if key == "quota" else f"--set {shlex.quote(setting)}")
    return " ".join(options)


def _find_pool(result: Result) -> str:
    """Return the file that the rows were read from; "ROWS" where they were several, or no file."""
    inputs = result.manifest.content.get("run", {}).get("inputs") or []
    return str(inputs[0]) if len(inputs) == 1 and Path(inputs[0]).is_file() else "ROWS"


def _spell_reading(result: Result) -> list[str]:
    """Return the options that read the file of `_find_pool` as it was read; none for "ROWS"."""
    from thresher.reporting.pages.reproduce import build_reading_words

    content = result.manifest.content
    if _find_pool(result) == "ROWS" or "schema" not in content:
        return []
    return [shlex.quote(word) for word in build_reading_words(content)]


def _join(options: tuple[str, ...]) -> str:
    return "".join(f" {option}" for option in options)
