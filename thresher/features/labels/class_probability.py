"""`class_probability`: how likely each class is, by classifiers that have not seen the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import combine_fingerprints
from thresher.cache.keys import text_keys
from thresher.dataset.values.given import CLASS, PROBABILITY
from thresher.errors import InputError, first_three
from thresher.features.compute import column_codes
from thresher.features.context import FeatureContext
from thresher.features.embedding import GIVEN, Embedding
from thresher.features.labels.cross_fit import (
    MANY_TEXTS,
    N_FOLDS,
    N_FOLDS_OF_MANY,
    FoldPrediction,
    LabeledTexts,
    predict_folds,
    word_view,
)
from thresher.features.labels.label_trust import Form, compare_classes, divide_by_prior, measure_trust
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.models.stages import Stage

if TYPE_CHECKING:
    from thresher.dataset import Dataset

RECIPE = "class-probability-3"
VOTES = ("class of embeddings", "class of words", "margin of embeddings", "margin of words")
MAX_CLASSES = 1_000
MAX_CELLS = 10**9  # of the array: 4 GB
ONE_CLASSIFIER = "the class probabilities are your own, so there are no two classifiers to compare"
UNKNOWN = "its label is on no other text, so nothing shows how likely it is"


class ClassProbability(FeatureProvider):
    """Probabilities of a text's classes, cross-fitted: learned from the other folds alone.

    Two logistic regressions, on the encoder's embeddings and on TF-IDF of the words, whose
    log-probabilities are averaged (a logarithmic opinion pool): the first knows meanings, the
    second words that the encoder blurs, and no one knows beforehand which of them tells the classes
    of a data set apart. Their penalty is fixed (C = 1): a weaker one that the log-loss of held-out
    given labels would choose reproduces labels that follow a wrong rule, and so hides them.

    Five folds (two from 100,000 texts on), stratified by label, follow from the hash of the texts;
    copies of a text are in one fold. A class is known to a fold as soon as one text of it lies
    outside; else its probability is 0. A classifier learns from at most 50,000 rows, or 200 for
    each class if that is more, at least 20 of each class among them where there are so many. Unlike
    other features, a row's value changes with the other rows and their labels: the cache knows it
    by the content of all of them.
    """

    name: ClassVar[str] = "class_probability"
    whole_pool_kinds: ClassVar[frozenset[str]] = frozenset({"classification"})

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return encoder, folds and the fingerprint of all; the context must be `resolved`.

        Of the user's own probabilities, their hash.
        """
        if self.name in context.given:
            return {"encoder": GIVEN, "fingerprint": context.given[self.name]}
        about = Embedding().describe(context)
        return {
            "encoder": about["encoder"],
            "n_folds": f"{N_FOLDS}, {N_FOLDS_OF_MANY} from {MANY_TEXTS:,} texts on",
            "fingerprint": combine_fingerprints(RECIPE, about["fingerprint"]),
        }

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.float32]:
        """Return (n, k) float32, rows sum to 1: the classes are `class_names`.

        Raises:
            InputError: the rows have no labels, one label, too many of them, or all the same text.
        """
        names = class_names(dataset)
        if self.name in dataset.given:
            return _select_classes(dataset)
        return cross_fit(dataset, context)[:, : len(names)]


class ClassVotes(FeatureProvider):
    """What each of the two classifiers behind `class_probability` says alone: (n, 4), see `VOTES`.

    Its likeliest class, and by how much in logarithms it prefers the text's own label (the most
    frequent one of its copies) to the likeliest other class, each divided by the root of the
    class's share of the labels.
    """

    name: ClassVar[str] = "class_votes"
    whole_pool_kinds: ClassVar[frozenset[str]] = frozenset({"classification"})

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return what `class_probability` says of itself without the user's own probabilities."""
        return ClassProbability().describe(replace(context, given=_drop_probability(context.given)))

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, 4) float32; NaN with its reason where the user gave the probabilities.

        Raises:
            InputError: as `class_probability`.
        """
        n_classes = len(class_names(dataset))
        is_given = PROBABILITY in dataset.given
        values = np.full((len(dataset), len(VOTES)), np.nan, np.float32)
        if not is_given:
            values = cross_fit(dataset, context)[:, n_classes:]
        why = pl.Series("missing", [ONE_CLASSIFIER if is_given else None] * len(dataset), dtype=pl.String)
        return FeatureValues(values=values, missing=why)


def _drop_probability(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if name != PROBABILITY}


def cross_fit(dataset: Dataset, context: FeatureContext) -> NDArray[np.float32]:
    """Return (n, k + 4) float32 of the two classifiers: probabilities, and votes (`VOTES`).

    Raises:
        InputError: the rows have no labels, one label, too many of them, or all the same text.
    """
    names = class_names(dataset)
    _check(dataset, names)
    context = context.resolved()
    work = _CrossFit(dataset, names, context)
    about = ClassVotes().describe(context)
    stage = Stage(
        name=PROBABILITY,
        texts=dataset.texts(),
        compute=work.compute_batches,
        feature=PROBABILITY,
        model=about["encoder"],
        fingerprint=combine_fingerprints(about["fingerprint"], work.hash_content()),
        groups=work.rows.fold[work.text],  # the classifiers of a fold predict for all its texts
    )
    values = context.run_stage(stage)
    if values is None:
        raise AssertionError("a dataset with two labels has rows")
    if work.n_unfinished:
        stopped = "1 classifier was" if work.n_unfinished == 1 else f"{work.n_unfinished} classifiers were"
        note = f"{PROBABILITY}: {stopped} stopped before convergence"
        context.report_notes(PROBABILITY, len(dataset), [note])
    return np.asarray(values, dtype=np.float32)


class _CrossFit:
    """Texts and labels in the order of the texts' hashes, and the classifiers' views of them."""

    def __init__(self, dataset: Dataset, names: list[str], context: FeatureContext) -> None:
        self._dataset = dataset
        self._context = context
        self._texts = dataset.texts()
        self._keys, self._first, self.text = np.unique(
            text_keys(self._texts.to_list()), return_index=True, return_inverse=True
        )
        self.rows = LabeledTexts.from_rows(
            self.text.astype(np.int64), given_classes(dataset), n_texts=len(self._keys), n_classes=len(names)
        )
        self.n_unfinished = 0

    def hash_content(self) -> str:
        """Return a hash of all texts and their labels, whatever the order of the rows."""
        total = xxhash.xxh3_128("\0".join(sorted(self._dataset.frame["response"].unique())).encode())
        for part in (self._keys, self.rows.text, self.rows.label, self.rows.weight):
            total.update(part.tobytes())
        return total.hexdigest()

    @cached_property
    def _views(self) -> list[Any]:
        texts = self._texts.gather(self._first)
        embedding = Embedding().compute(self._dataset, self._context)[self._first]
        return [embedding, word_view(texts.to_list(), self.rows.n_classes)]

    def compute_batches(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield (b, k) float32 of some of the texts, fold by fold."""
        # (b,) number of each among the distinct texts
        text = np.searchsorted(self._keys, text_keys(texts.to_list()))
        folds = np.unique(self.rows.fold[text]).tolist()
        for predicted in predict_folds(self.rows, self._views, folds):
            self.n_unfinished += predicted.n_unfinished
            # which of the texts lie in this fold
            positions = np.flatnonzero(np.isin(text, predicted.texts))
            at = np.searchsorted(predicted.texts, text[positions])
            both = np.hstack([predicted.probability, self._vote(predicted)])
            yield Batch(positions, both[at].astype(np.float32))

    def _vote(self, predicted: FoldPrediction) -> NDArray[np.float64]:
        """Return (t, 4) of the texts of a fold."""
        label = self.rows.main_label[predicted.texts]
        counts = np.bincount(self.rows.label, weights=self.rows.weight, minlength=self.rows.n_classes)
        root = np.sqrt(counts).astype(np.float64)
        margins = [compare_classes(np.exp(logs), label, root)[0] for logs in predicted.logs]
        return np.stack([*(logs.argmax(axis=1) for logs in predicted.logs), *margins], axis=1)


def _select_classes(dataset: Dataset) -> NDArray[np.float32]:
    """Return the user's own probabilities of the labels that these rows have, scaled to sum to 1.

    The rows may be some of those that they were given for, and then lack some of the labels.
    """
    first = np.unique(given_classes(dataset), return_index=True)[1]
    values = dataset.given[PROBABILITY][:, dataset.given[CLASS][first]].astype(np.float64)
    total = values.sum(axis=1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    return scaled.astype(np.float32)


def class_names(dataset: Dataset) -> list[str]:
    """Return the labels of classification data, sorted: the columns of `class_probability`.

    Raises:
        InputError: the rows have no labels.
    """
    if dataset.kind != "classification":
        raise InputError(f"class_probability: rows need a text and a label, found rows of kind '{dataset.kind}'")
    return sorted(dataset.frame["response"].unique().to_list())


def given_classes(dataset: Dataset) -> NDArray[np.int64]:
    """Return (n,) int64: the place of each row's label in `class_names`."""
    return column_codes(dataset, "label")


def self_confidence(dataset: Dataset, context: FeatureContext, *, form: Form = "auto") -> FeatureValues:
    """Return how far each row's given label can be trusted: low where it may be wrong.

    Args:
        dataset: rows with a text and a label.
        context: encoder, device and cache.
        form: "auto": the trust of `measure_trust`, in which a rule decides how much of the classes'
            shares is divided out; "plain": the cross-fitted probability of the given label, as
            cleanlab ranks label errors (its `adjust_pred_probs` is off) and as Kuan & Mueller 2022
            (doi:10.5281/zenodo.18168246) take it for their basic score; "prior-divided": the same
            after each class's probability was divided by its share of the labels.

    Returns:
        (n,) float64 in 0..1, NaN with a reason for a row whose label stands on no other text.
    """
    probability = ClassProbability().compute(dataset, context).astype(np.float64)
    given_class = given_classes(dataset)
    own = probability[np.arange(len(given_class)), given_class]
    is_unknown = own == 0
    if form == "auto":
        own = measure_trust(probability, given_class).value
    elif form == "prior-divided":
        own = divide_by_prior(probability, given_class)[np.arange(len(given_class)), given_class]
    own = np.where(is_unknown, np.nan, own)
    reasons = pl.Series("missing", np.where(is_unknown, UNKNOWN, ""), dtype=pl.String).replace("", None)
    notes = {"rows": len(given_class), "rows_missing": int(is_unknown.sum()), "classes": probability.shape[1]}
    return FeatureValues(values=own, missing=reasons, notes=notes)


def _check(dataset: Dataset, names: list[str]) -> None:
    n = len(dataset)
    if len(names) < 2:
        raise InputError(
            f"class_probability: needs at least two labels, found {first_three(names) or 'no rows'}; "
            f"check the label column"
        )
    if len(names) > MAX_CLASSES or n * len(names) > MAX_CELLS:
        raise InputError(
            f"class_probability: at most {MAX_CLASSES:,} labels, and rows x labels up to {MAX_CELLS:,}, are "
            f"supported, found {len(names):,} labels on {n:,} rows; check the label column, or merge rare labels"
        )
    if dataset.frame["prompt"].n_unique() < 2:
        raise InputError(f"class_probability: needs at least two different texts, found one on {n:,} rows")
