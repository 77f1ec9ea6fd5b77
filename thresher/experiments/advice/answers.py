"""What the steps showed, as an answer to each question: the answer first, then the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thresher.curation.result import Curated
from thresher.experiments.curve import LearningCurve
from thresher.experiments.settings import BASELINE
from thresher.numeric.units import format_count
from thresher.selectors.target_similarity import TargetSimilarity
from thresher.subset.subset import Subset
from thresher.trainer.adapter import Adapter
from thresher.trainer.untouched.summary import describe_difference, format_scores

WHY_NOT = "not measured: time ran out; the same command with a longer --max-time picks up from here"


def answer_questions(
    clean: Curated,
    curve: LearningCurve | None,
    subset: Subset,
    adapter: Adapter | None,
    *,
    how: Sequence[str],
    why: str | None,
    left_out: Sequence[str],
    remark: str = "",
) -> list[dict[str, str]]:
    """Return `question` and `answer` of each question, in the order in which they are asked.

    Args:
        clean: the pool after cleaning.
        curve: of the clean pool, or None where it was left out.
        subset: the chosen rows.
        adapter: trained on them, or None where it was left out.
        how: why so many rows, and what else is known of their number; empty sentences are left out.
        why: what a pilot that trained found, or None.
        left_out: names of the steps that the time limit left out.
        remark: what is odd about the test rows, or "".
    """
    worth = _answer_worth(curve, adapter)
    return [
        {"question": "Is it worth it?", "answer": f"{worth} {_finish(remark)}" if remark else worth},
        {"question": "Which rows?", "answer": _answer_rows(subset, adapter, why)},
        {"question": "How many?", "answer": _answer_number(subset, clean, how)},
        {"question": "What did it break?", "answer": _answer_loss(adapter, clean.dataset.kind)},
        {"question": "What next?", "answer": _answer_next(clean, curve, subset, adapter, left_out)},
    ]


def _answer_number(subset: Subset, clean: Curated, how: Sequence[str]) -> str:
    return " ".join(
        [f"{len(subset):,} of {format_count(len(clean), 'clean row')}.", *(_finish(each) for each in how if each)]
    )


def _answer_worth(curve: LearningCurve | None, adapter: Adapter | None) -> str:
    if adapter is not None and adapter.metrics.get("base") and adapter.metrics["base"]["sentence"]:
        scores = format_scores(adapter.metrics)
        return f"{_finish(adapter.metrics['base']['sentence'])} {_finish(scores)}"
    base = None if curve is None else curve.content.get("base")
    if base:
        return " ".join(_tell_gain(method, entry["sentence"]) for method, entry in base["methods"].items())
    if adapter is not None:
        return "Not measured: --base none leaves out the untouched model."
    return _finish(WHY_NOT)


def _tell_gain(method: str, sentence: str) -> str:
    """Return "Training on random rows pays from 48 rows on: ..."."""
    rows = "random rows" if method == BASELINE else f"rows chosen by {method}"
    return _finish(f"training on {rows} {'is ' if sentence.startswith('not shown') else ''}{sentence}")


def _answer_rows(subset: Subset, adapter: Adapter | None, why: str | None) -> str:
    if len(subset) == len(subset.pool):
        return "All clean rows: there was nothing to choose (--budget sets how many to choose)."
    pilot = subset.manifest.content.get("pilot")
    text = _finish(pilot["why"]) if pilot and pilot.get("why") else "Random rows of the clean pool."
    text = text if why is None else _finish(why)
    compared = None if adapter is None else adapter.metrics["comparison"]
    if compared is None:
        return text
    # they were trained on: no need to say that a comparison would tell what they bring
    if why is None and pilot and pilot["chosen"] == TargetSimilarity.name:
        text = "The rows most similar to the target: its rows take turns picking."
    difference = describe_difference(compared, "the same number of random rows")
    return text if difference is None else f"{text} Trained on them: {difference}."


def _answer_loss(adapter: Adapter | None, kind: str) -> str:
    if kind == "classification":
        return "Does not apply: a classifier writes no text."
    if adapter is None:
        return _finish(WHY_NOT)
    general = adapter.metrics.get("general")
    if general is None or general["sentence"] is None:
        return "Not measured: --general none."
    return _finish(f"the model {general['sentence']}")


def _answer_next(
    clean: Curated, curve: LearningCurve | None, subset: Subset, adapter: Adapter | None, left_out: Sequence[str]
) -> str:
    advice = []
    if left_out:
        advice.append(f"run the same command with a longer --max-time to add what was left out: {', '.join(left_out)}")
    if adapter is not None:
        metrics: dict[str, Any] = dict(adapter.metrics)
        base, general = metrics.get("base"), metrics.get("general")
        if base and base["verdict"] == "worse":
            advice.append("do not use the adapter; check that answers and labels are right and of the form you ask for")
        if base and base["verdict"] == "no difference":
            plain = "a plain probe does as well" if metrics["task"] == "classification" else "keep the untouched model"
            advice.append(f"{plain}, unless you bring more rows")
        if general and general["verdict"] == "lost":
            advice.append("train with --scale auto, which keeps the largest gain within what may be forgotten")
        if base and base["verdict"] == "better" and not (general and general["verdict"] == "lost"):
            advice.append(f"use {adapter.path}; thresher tune looks for better settings")
            enough = None if curve is None else curve.enough.get(BASELINE)
            if enough is not None and enough.verdict == "all" and len(subset) == len(clean):
                advice.append(f"collect more rows: with all {len(clean):,} the curve has not leveled off")
    share = 1 - len(clean) / max(1, clean.manifest.content["counts"]["usable"])
    if share > 0.05:
        advice.append(f"look at clean/dropped.parquet: cleaning dropped {share:.0%} of the pool")
    return _finish("; ".join(advice) if advice else "nothing: every question has its answer")


def _finish(sentence: str) -> str:
    text = sentence.strip()
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")
