"""How much a language model trusts a row's answer: by its own answers and by its judgment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from thresher.cache.fingerprint import combine_fingerprints
from thresher.features.answers.entailment import Entailment
from thresher.features.answers.prompts import PromptRows, missing_series, plain
from thresher.features.context import FeatureContext
from thresher.features.embedding import Embedding, embed_texts
from thresher.features.labels.class_probability import ClassProbability, self_confidence
from thresher.features.registry import FeatureProvider, FeatureValues, describe_missing
from thresher.models.generation.generator import Generation, TextGenerator, user_turn
from thresher.models.generation.load import load_generator
from thresher.numeric.arrays import Float64, Int64

if TYPE_CHECKING:
    from thresher.dataset import Dataset

RECIPE = "confidence-1"
LETTERS = ("A", "B")
REFLECTIONS = (
    "Question:\n{prompt}\n\nProposed answer:\n{response}\n\nIs the proposed answer:\n(A) Correct\n(B) Incorrect\n\n"
    "The output should be the letter A or B only.",
    "Question:\n{prompt}\n\nProposed answer:\n{response}\n\nAre you really sure that the proposed answer is correct?\n"
    "(A) Yes\n(B) No\n\nThe output should be the letter A or B only.",
)


class Confidence(FeatureProvider):
    """Confidence in the answer that a row gives, 0 to 1: beta O + (1 - beta) S, as in BSDetector.

    O, observed consistency: the model answers the row's prompt `n_samples` times; the mean over
    these answers of alpha s + (1 - alpha) r, where r is 1 if an answer and the given one are the
    same words, and s is their agreement in meaning. With an entailment model, s = 1 - the mean of
    its probability of contradiction in both orders; without one, s is the cosine of the encoder's
    vectors of the two answers, 0 where it is negative. An empty answer agrees with none.

    S, self-reflection: the model is asked whether the given answer is correct, and whether it is
    really sure; P(A) / (P(A) + P(B)) of the next token, averaged over the two questions.

    Of classification data it is the trust in the given label (`measure_trust`), by classifiers that
    have not seen the row (`class_probability`), and no language model is asked.

    Source: Chen & Mueller 2024, arXiv:2308.16175 (BSDetector); of the given answer:
    arXiv:2403.12776 (CLEAR).
    """

    name: ClassVar[str] = "confidence"
    whole_pool_kinds: ClassVar[frozenset[str]] = frozenset({"classification"})
    passes: ClassVar[str] = (
        "the language model generates n_samples answers to each of n prompts and reads 2 n prompts with their "
        "responses; for classification data, the encoder reads n texts"
    )

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the models and weights behind rows with responses; `context` is `resolved`."""
        settings = context.confidence
        generator = load_generator(context)
        encoder = Embedding().describe(context)
        about = {"model": generator.name, "encoder": encoder["encoder"]}
        parts = [RECIPE, *REFLECTIONS, str(settings.decoding), str(settings.alpha), str(settings.beta)]
        parts += [generator.fingerprint, encoder["fingerprint"]]
        if settings.entailment is not None:
            entailment = Entailment(settings.entailment, device=context.models.device)
            about["entailment"] = entailment.name
            parts.append(entailment.fingerprint)
        shown = {name: str(getattr(settings, name)) for name in ("n_samples", "temperature", "alpha", "beta")}
        return {**about, **shown, "fingerprint": combine_fingerprints(*parts)}

    def describe_kind(self, context: FeatureContext, kind: str) -> dict[str, str]:
        """Return what is behind the values; of classification data no language model."""
        if kind != "classification":
            return self.describe(context)
        return {**ClassProbability().describe(context), "form": context.confidence.labels}

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) float64, NaN with its reason for a row that got no answer or no verdict.

        Raises:
            InputError: the rows are plain text, or a model or server cannot be asked.
        """
        context = context.resolved()
        if dataset.kind == "classification":
            return self_confidence(dataset, context, form=context.confidence.labels)
        rows = PromptRows.from_dataset(dataset, by=self.name)
        generator = load_generator(context)
        # referenced, so that the features computed after this one share the model
        self._generator = generator
        settings = context.confidence
        values = np.zeros(len(dataset))
        problems: list[str | None] = [None] * len(dataset)
        notes = {"rows": len(dataset), "answers_cut": 0, "pairs_cut": 0}
        if settings.beta > 0:
            values += settings.beta * _score_consistency(rows, problems, generator, context, notes)
        if settings.beta < 1:
            values += (1 - settings.beta) * _score_reflection(rows, problems, generator, context)
        values[[problem is not None for problem in problems]] = np.nan
        notes["rows_missing"] = int(np.isnan(values).sum())
        context.report_notes(self.name, len(values), (*generator.notes(), *_sentences(notes)))
        return FeatureValues(values=values, missing=missing_series(problems), notes=notes)


def _score_consistency(
    rows: PromptRows,
    problems: list[str | None],
    generator: TextGenerator,
    context: FeatureContext,
    notes: dict[str, int],
) -> Float64:
    """Return O of each row, (n,); where there is none, the reason goes into `problems`."""
    settings = context.confidence
    answers = generator.generate(rows.conversations, settings.decoding, stage="confidence: answers", context=context)
    row_of: list[int] = []  # row that each usable answer belongs to
    texts: list[str] = []
    for row, samples in enumerate(answers):
        usable = [answer.text for answer in samples if answer.text is not None]
        if not usable:
            problems[row] = _first_problem(samples)
        row_of += [row] * len(usable)
        texts += usable
        notes["answers_cut"] += sum(answer.is_cut for answer in samples)
    responses = [rows.responses[row] for row in row_of]
    agreement, notes["pairs_cut"] = _compare_meaning(responses, texts, context)
    is_same = np.array([plain(a) == plain(b) for a, b in zip(responses, texts, strict=True)], dtype=np.float64)
    agreement[[not text.strip() for text in texts]] = 0.0
    weights = settings.alpha * agreement + (1 - settings.alpha) * is_same
    n = len(rows.conversations)
    total = np.bincount(row_of, weights=weights, minlength=n).astype(np.float64)
    return _divide(total, np.bincount(row_of, minlength=n))


def _divide(total: Float64, count: Int64) -> Float64:
    """Return the means, (n,), NaN where nothing was counted."""
    mean: Float64 = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def _first_problem(answers: Sequence[Generation]) -> str:
    return next(answer.problem for answer in answers if answer.problem is not None)


def _compare_meaning(responses: list[str], answers: list[str], context: FeatureContext) -> tuple[Float64, int]:
    """Return the agreement in meaning of pairs of texts, (p,) 0 to 1, and how many were cut."""
    if context.confidence.entailment is not None:
        entailment = Entailment(context.confidence.entailment, device=context.models.device)
        pairs = [*zip(responses, answers, strict=True), *zip(answers, responses, strict=True)]
        p, n_cut = entailment.predict_contradictions(pairs, stage="confidence: entailment", context=context)
        return 1 - p.reshape(2, -1).mean(axis=0), n_cut
    x, y = (embed_texts(texts, context, stage="confidence: agreement") for texts in (responses, answers))
    return np.clip(np.einsum("pd,pd->p", x, y, dtype=np.float64), 0.0, 1.0), 0


def _score_reflection(
    rows: PromptRows, problems: list[str | None], generator: TextGenerator, context: FeatureContext
) -> Float64:
    """Return S of each row, (n,): the mean over the questions that got an answer."""
    questions = [
        user_turn(text.format(prompt=prompt, response=response))
        for text in REFLECTIONS
        for prompt, response in zip(rows.prompts, rows.responses, strict=True)
    ]
    scored = generator.score_options(questions, LETTERS, stage="confidence: reflection", context=context)
    yes = scored.probabilities[:, 0].reshape(len(REFLECTIONS), len(rows.conversations))
    is_there = np.isfinite(yes)
    count = is_there.sum(axis=0)
    for row in np.flatnonzero(count == 0):
        problems[row] = problems[row] or scored.problems[row]
    return _divide(np.where(is_there, yes, 0.0).sum(axis=0), count)


def _sentences(notes: dict[str, int]) -> Iterator[str]:
    """Yield what the user should know of answers that were cut and rows without a value."""
    if notes["answers_cut"]:
        yield f"confidence: {notes['answers_cut']:,} sampled answers were cut off at max_new_tokens"
    if notes["pairs_cut"]:
        yield f"confidence: {notes['pairs_cut']:,} pairs of answers were longer than the entailment model reads"
    yield from describe_missing("confidence", notes)
