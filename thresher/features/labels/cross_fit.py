"""Cross-fitted class probabilities: classifiers have seen neither the text nor a copy of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from thresher.features.labels.folds import stratified_folds
from thresher.numeric.arrays import Float64, Int64
from thresher.numeric.threads import limit_blas

N_FOLDS, N_FOLDS_OF_MANY = 5, 2
MANY_TEXTS = 100_000  # from which half of them are more than a classifier learns from
PENALTY = 1.0  # C of the logistic regressions: the inverse strength of their L2 penalty
MAX_FIT_ROWS = 50_000  # rows that one classifier learns from, or
FIT_ROWS_PER_CLASS = 200  # for each class, if that is more
MIN_FIT_ROWS = 20  # of each class, as far as there are so many
MAX_ITERATIONS = 200
LEAST = 1e-12  # probability of a class that the classifier knows
MANY_CLASSES = (
    # of the rows: a warning of scikit-learn, not wrong here
    "The number of unique classes is greater than 50%"
)
WORD_CELLS = 1 << 22  # weights of the classifier on words, at most
WORD_BITS = (10, 18)  # log2 of the number of hashed words, least and most


@dataclass(frozen=True)
class LabeledTexts:
    """Distinct texts and their given labels, in an order that does not depend on the rows.

    Attributes:
        n_texts: number of distinct texts, u.
        n_classes: number of classes.
        text: (p,) text of each distinct pair of a text and a label.
        label: (p,) class of each pair.
        weight: (p,) rows with this pair.
    """

    n_texts: int
    n_classes: int
    text: Int64
    label: Int64
    weight: Int64

    @classmethod
    def from_rows(cls, text: Int64, label: Int64, *, n_texts: int, n_classes: int) -> LabeledTexts:
        """Gather rows: (n,) text and (n,) class of each."""
        pairs, counts = np.unique(text * n_classes + label, return_counts=True)
        return cls(n_texts, n_classes, pairs // n_classes, pairs % n_classes, counts.astype(np.int64))

    @property
    def n_folds(self) -> int:
        """Folds: five, two of very many texts, or one for each text where there are fewer."""
        return min(N_FOLDS if self.n_texts < MANY_TEXTS else N_FOLDS_OF_MANY, self.n_texts)

    @cached_property
    def main_label(self) -> Int64:
        """Most frequent label of each text, (u,), the lowest if equal."""
        order = np.lexsort((self.label, -self.weight, self.text))
        first = np.unique(self.text[order], return_index=True)[1]
        return self.label[order][first]

    @cached_property
    def fold(self) -> Int64:
        """Fold of each text, (u,): stratified by its most frequent label."""
        return stratified_folds(self.main_label, self.n_folds)

    def training_pairs(self, fold: int) -> Int64:
        """Return the pairs to learn when a fold is held out: some of each class, then by hash."""
        pairs = np.flatnonzero(self.fold[self.text] != fold)
        label = self.label[pairs]
        by_label = np.argsort(label, kind="stable")
        starts = np.searchsorted(label[by_label], np.arange(self.n_classes))
        # rank of each pair among those of its label: pairs are in the order of the texts' hashes
        rank = np.empty(len(pairs), dtype=np.int64)
        rank[by_label] = np.arange(len(pairs)) - starts[label[by_label]]
        # the first MIN_FIT_ROWS of every label come first, so that the cut leaves no label out
        order = np.argsort(rank >= MIN_FIT_ROWS, kind="stable")
        return np.sort(pairs[order[: max(MAX_FIT_ROWS, FIT_ROWS_PER_CLASS * self.n_classes)]])


@dataclass(frozen=True)
class FoldPrediction:
    """Class probabilities of the texts of one fold.

    Attributes:
        texts: (t,) their positions.
        probability: (t, k) float64, rows sum to 1; 0 for a class that occurs in no other fold.
        n_unfinished: classifiers that stopped at the limit of their iterations.
        logs: (v, t, k) log-probabilities by each view alone; -inf for a class that it has not seen.
    """

    texts: Int64
    probability: Float64
    n_unfinished: int
    logs: Float64


def predict_folds(
    rows: LabeledTexts, views: Sequence[Any], folds: Sequence[int], *, penalty: float = PENALTY
) -> Iterator[FoldPrediction]:
    """Yield the class probabilities of the texts of some folds.

    Each view of the texts gives a multinomial logistic regression with an L2 penalty; their
    log-probabilities are averaged.

    Args:
        rows: texts and their given labels.
        views: of the texts, (u, d) each, dense or sparse; rows of length 1, so that one penalty
            suits all.
        folds: whose texts are predicted.
        penalty: C of the logistic regressions.
    """
    for fold in folds:
        texts = np.flatnonzero(rows.fold == fold)
        # no pair of a held-out text is learned: its fold is left out whole, and copies share a fold
        fits = [_Fit(rows, view, rows.training_pairs(fold), penalty) for view in views]
        # the mean of log-probabilities is the geometric mean of probabilities, scaled to sum to 1
        logs = np.stack([fit.log_probability(_take(view, texts)) for fit, view in zip(fits, views, strict=True)])
        mean = logs.mean(axis=0)
        pooled = np.exp(mean - mean.max(axis=1, keepdims=True))
        yield FoldPrediction(
            texts=texts,
            probability=pooled / pooled.sum(axis=1, keepdims=True),
            n_unfinished=sum(fit.is_unfinished for fit in fits),
            logs=logs,
        )


class _Fit:
    """A logistic regression on some pairs of texts and labels."""

    def __init__(self, rows: LabeledTexts, view: Any, learned: Int64, penalty: float) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        self._n_classes = rows.n_classes
        self._known = np.unique(rows.label[learned])
        self._model = None
        self.is_unfinished = False
        if len(self._known) < 2:  # all the others have one label: there is nothing to learn
            return
        self._model = LogisticRegression(C=penalty, max_iter=MAX_ITERATIONS)
        with limit_blas(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted and reported
            warnings.filterwarnings("ignore", MANY_CLASSES, UserWarning)
            self._model.fit(_take(view, rows.text[learned]), rows.label[learned], sample_weight=rows.weight[learned])
        self.is_unfinished = bool(self._model.n_iter_.max() >= MAX_ITERATIONS)

    def log_probability(self, x: Any) -> Float64:
        """Return (t, k) float64: -inf for classes that were not learned."""
        logs = np.full((x.shape[0], self._n_classes), -np.inf)
        if self._model is None:
            logs[:, self._known] = 0.0
        else:
            logs[:, self._known] = np.log(np.maximum(self._model.predict_proba(x), LEAST))
        return logs


def _take(view: Any, rows: Int64) -> Any:
    """Return some rows of a view in double precision; the whole of it would be large."""
    return view[rows].astype(np.float64)


def word_view(texts: Sequence[str], n_classes: int) -> Any:
    """Return the words of texts as unit rows of TF-IDF, sparse (u, w): 1 + log(count), hashed.

    A word of one text alone tells nothing of another and is left out. A text without words is a row
    of zeros.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    least, most = WORD_BITS
    n_words = 1 << max(least, min(most, (WORD_CELLS // n_classes).bit_length() - 1))
    counts = HashingVectorizer(n_features=n_words, alternate_sign=False, norm=None).transform(texts)
    is_shared = np.bincount(counts.indices, minlength=n_words) > 1
    if not is_shared.any():
        # a column of zeros: the classifier then knows how frequent the classes are
        is_shared[0] = True
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, is_shared])
