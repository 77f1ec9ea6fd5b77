"""What models say of unlabeled rows: how far training moved them, how much answers disagree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from thresher.errors import InputError, SettingsError
from thresher.labeling.annotator import build_prompt, find_label
from thresher.labeling.settings import AskSettings
from thresher.numeric.arrays import Float64

if TYPE_CHECKING:
    from thresher.features import FeatureContext
    from thresher.trainer.adapter import Adapter

LEAST = 1e-12  # probability that a model gives a label at least


def check_sources(settings: AskSettings, model: str | None) -> None:
    """Refuse a model that is not used, and a way without the model that it needs.

    Raises:
        SettingsError: one is missing, or has no effect.
    """
    if model is not None and settings.by != "disagree":
        raise SettingsError(
            f"label ask: model is only used by --by disagree, got '{model}'; name who labels with --annotator"
        )
    if model is None and settings.by == "disagree":
        raise SettingsError("label ask: --by disagree samples answers of a language model; name it with --model")
    if settings.adapter is not None and settings.by != "change":
        raise SettingsError(f"label ask: adapter is only used by --by change, got --by {settings.by}; leave it out")
    if settings.adapter is None and settings.by == "change":
        raise SettingsError(
            "label ask: --by change needs a classifier trained on the labels so far; give its folder as --adapter"
        )


def identify_source(settings: AskSettings, context: FeatureContext) -> str | None:
    """Return the hash of the model by which rows are scored, or None."""
    from thresher.models.generation.load import load_generator

    if settings.adapter is not None:
        return open_adapter(settings.adapter).manifest.hash
    return load_generator(context).fingerprint if settings.by == "disagree" else None


def measure_scores(
    texts: Sequence[str], classes: Sequence[str], settings: AskSettings, context: FeatureContext
) -> Float64 | None:
    """Return by how much each text counts, (n,), where the way asks a model; else None.

    It is NaN where that is not known.
    """
    if settings.by == "disagree":
        return measure_disagreement(texts, classes, settings, context)
    if settings.adapter is None:
        return None
    return measure_change(open_adapter(settings.adapter), texts, device=context.models.device)


def open_adapter(folder: str) -> Adapter:
    """Open a classifier, which is compared with its base.

    Raises:
        ManifestError: the folder is no adapter.
        InputError: it is no classifier.
    """
    from thresher.artifacts.remote.fetch import localize
    from thresher.trainer.adapter import Adapter

    adapter = Adapter.read(Path(localize(folder)).expanduser())
    task = adapter.metrics["task"]
    if task != "classification":
        raise InputError(f"adapter: a classifier is required, got the adapter of a language model in {folder}")
    return adapter


def measure_change(adapter: Adapter, texts: Sequence[str], *, device: str | None) -> Float64:
    """Return how far training moved what is said of each text, (n,): KL(p_trained || p_base).

    The base is the encoder without the adapter under the same head.

    Raises:
        InputError: the adapter has no such base.
    """
    options = {} if device is None else {"device": device}
    table = adapter.predict(list(texts), **options)  # type: ignore[arg-type]
    if table["base"].null_count():
        raise InputError(
            "adapter: its base is not comparable, as it trained the head of its architecture or all weights; train one "
            "with --pooling auto"
        )
    divergence = pl.col("adapter") * (pl.col("adapter").clip(LEAST).log() - pl.col("base").clip(LEAST).log())
    by_text = table.group_by("text").agg(divergence.sum().alias("kl"), pl.len().alias("n_labels"))
    n_labels = len(adapter.metrics["labels"])
    values = dict(zip(by_text["text"], (by_text["kl"] * n_labels / by_text["n_labels"]), strict=True))
    return np.array([max(0.0, values[text]) for text in texts])


def measure_disagreement(
    texts: Sequence[str], classes: Sequence[str], settings: AskSettings, context: FeatureContext
) -> Float64:
    """Return how much sampled answers of a model disagree, (n,): 1 - sum over answers of p^2.

    With classes an answer is the label that it names, or none of them; else its words. A sample
    without a text is no answer, and of fewer than two answers nothing is known: NaN.

    Args:
        texts: n.
        classes: labels to choose from; none for answers in words.
        settings: with the number of samples and the guide.
        context: with the language model.
    """
    from thresher.models.generation.decoding import Decoding
    from thresher.models.generation.generator import user_turn
    from thresher.models.generation.load import load_generator

    prompts = [build_prompt(text, classes, [], guide=settings.guide) if len(classes) > 1 else text for text in texts]
    answers = load_generator(context).generate(
        [user_turn(prompt) for prompt in prompts],
        Decoding(n_samples=settings.n_samples, temperature=1.0, max_new_tokens=48, seed=settings.seed),
        stage="label ask: sampled answers",
        context=context,
    )
    said = [
        [
            find_label(each.text, classes) if len(classes) > 1 else _simplify(each.text)
            for each in drawn
            if each.text is not None
        ]
        for drawn in answers
    ]
    return np.array([_measure_spread(own) if len(own) > 1 else np.nan for own in said])


def _measure_spread(answers: Sequence[str | None]) -> float:
    return 1 - sum((n / len(answers)) ** 2 for n in Counter(answers).values())


def fill_unknown(scores: Float64) -> Float64:
    """Return the scores, the unknown ones as the median of the others; 0 without any."""
    is_known = ~np.isnan(scores)
    return np.where(is_known, scores, np.median(scores[is_known]) if is_known.any() else 0.0)


def describe_scores(scores: Float64, by: str) -> str:
    """Say for how many rows there is anything to choose by, and how many are not known."""
    n_known = int((~np.isnan(scores)).sum())
    n_rows = f"{int((scores > 0).sum()):,} of {len(scores):,} rows"
    told = f"training changed the prediction for {n_rows}" if by == "change" else f"sampled answers differ on {n_rows}"
    lacking = f"; {len(scores) - n_known:,} have fewer than two answers and count with the median"
    return told + (lacking if n_known < len(scores) else "")


def _simplify(answer: str) -> str:
    return " ".join(re.findall(r"\w+", answer.casefold()))
