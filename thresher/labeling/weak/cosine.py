"""Self-training on weak labels (COSINE), on vectors of a frozen encoder, with the right formulas.

Source: Yu et al. 2021, arXiv:2010.07835. Its published code differs from its paper: the entropy is
divided by the log of the batch size and not of the number of classes, the contrastive term is
computed on the teacher's features, which have no gradient, and class frequencies are those of a
batch. Here: of all rows, of the student, of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax, softmax

from thresher.numeric.arrays import Bool, Float32, Float64, Int64
from thresher.numeric.vectors import unit_rows

WIDTH = 128  # of the features that the contrastive term moves
BATCH, RATE, DECAY = 128, 2e-3, 1e-4
DEV_SHARE, PATIENCE, MOST_EPOCHS = 0.1, 3, 30  # of the beginning, which ends before the noise
N_ROUNDS, ROUND_STEPS = 10, 50  # of the teacher


@dataclass(frozen=True, kw_only=True)
class CosineSettings:
    """Constants of self-training, those of the paper's data sets in the middle.

    Attributes:
        least: confidence from which a row is learned from.
        smoothness: weight of the distance to uniform probabilities, against overconfidence.
        margin: distance of features from which different classes are far enough apart.
    """

    least: float = 0.6
    smoothness: float = 0.1
    margin: float = 1.0


class Confidence(NamedTuple):
    """What a teacher says of rows.

    Attributes:
        soft: (n, k) targets; rows sum to 1.
        weight: (n,) 1 - H / log k, from 0 (uniform) to 1 (one class).
        is_learned: (n,) whether the weight is high enough.
    """

    soft: Float64
    weight: Float64
    is_learned: Bool


class Outcome(NamedTuple):
    """Both classifiers of a seed.

    Attributes:
        before: (m,) class of each test row by the beginning, which learned the weak labels.
        after: (m,) by the self-trained one.
        confidence: of the last teacher, on all rows.
        probability: (n, k) of all rows by the self-trained one.
    """

    before: Int64
    after: Int64
    confidence: Confidence
    probability: Float64


def judge_rows(probability: Float64, least: float) -> Confidence:
    """Return soft targets and confidence: y_ij ~ p_ij^2 / sum_i p_ij, and w = 1 - H(y) / log k.

    Args:
        probability: (n, k) of a teacher; k of at least 2.
        least: weight from which a row is learned from.
    """
    squared = probability**2 / probability.sum(axis=0)
    return judge_targets(squared / squared.sum(axis=1, keepdims=True), least)


def judge_targets(soft: Float64, least: float) -> Confidence:
    """Return the confidence of soft targets, (n, k)."""
    entropy = -(soft * np.log(np.where(soft > 0, soft, 1.0))).sum(axis=1)
    weight = np.clip(1 - entropy / np.log(soft.shape[1]), 0.0, 1.0)
    return Confidence(soft, weight, weight >= least)


def contrast(features: torch.Tensor, soft: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the mean over pairs of W d^2 + (1 - W) max(0, margin - d)^2.

    d^2 is the squared distance of two rows' features over their number, W is 1 where both have the
    same likeliest class.

    Args:
        features: (b, width) of the student.
        soft: (b, k) targets.
        margin: of different classes.
    """
    first, second = torch.triu_indices(len(features), len(features), offset=1)
    if not len(first):
        return features.sum() * 0.0
    squared = (features[first] - features[second]).square().mean(dim=1)
    distance = (squared + 1e-12).sqrt()  # a root of 0 has no gradient
    likeliest = soft.argmax(dim=1)
    is_same = likeliest[first] == likeliest[second]
    return torch.where(is_same, squared, (margin - distance).clamp(min=0).square()).mean()


def compute_loss(
    logits: torch.Tensor, features: torch.Tensor, soft: torch.Tensor, weight: torch.Tensor, settings: CosineSettings
) -> torch.Tensor:
    """Return mean w KL(y || p) + smoothness mean KL(u || p) + contrast, of the rows learned from.

    Args:
        logits: (b, k) of the student.
        features: (b, width) of the student.
        soft: (b, k) targets.
        weight: (b,) confidence.
        settings: the constants.
    """
    log_p = log_softmax(logits, dim=1)
    of_rows = (soft * (torch.where(soft > 0, soft, 1.0).log() - log_p)).sum(dim=1)  # KL(y || p)
    k = logits.shape[1]
    from_uniform = -log_p.mean(dim=1) - float(np.log(k))  # KL(u || p)
    return (
        (weight * of_rows).mean()
        + settings.smoothness * from_uniform.mean()
        + contrast(features, soft, settings.margin)
    )


class _Student(torch.nn.Module):
    def __init__(self, d: int, k: int) -> None:
        super().__init__()
        self.inner, self.head = torch.nn.Linear(d, WIDTH), torch.nn.Linear(WIDTH, k)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.tanh(self.inner(x))
        return self.head(features), features


def self_train(
    vectors: Float32, label: Int64, test: Float32, n_classes: int, *, seed: int, settings: CosineSettings
) -> Outcome:
    """Learn weak labels until a tenth of them gets worse, then learn from oneself.

    Args:
        vectors: (n, d) of all rows.
        label: (n,) weak class of each, -1 for none.
        test: (m, d) of the test rows.
        n_classes: k.
        seed: of the weights and the order of the rows.
        settings: the constants.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        scale = float(np.sqrt(vectors.shape[1]))  # so that a number of a vector is about 1
        x, judged = (
            torch.from_numpy(np.ascontiguousarray(unit_rows(each) * scale)).float() for each in (vectors, test)
        )
        student = _Student(x.shape[1], n_classes)
        _learn_labels(student, x, label, rng)
        before = _predict(student, judged).argmax(axis=1)
        confidence = _teach(student, x, rng, settings)
        after = _predict(student, judged).argmax(axis=1)
        probability = _predict(student, x)
    return Outcome(before.astype(np.int64), after.astype(np.int64), confidence, probability)


def _predict(student: _Student, x: torch.Tensor) -> Float64:
    with torch.no_grad():
        probability: Float64 = softmax(student(x)[0].double(), dim=1).numpy()
    return probability


def _learn_labels(student: _Student, x: torch.Tensor, label: Int64, rng: np.random.Generator) -> None:
    """Learn the weak labels; keep the weights that fit those of a tenth best, which are unseen."""
    given = rng.permutation(np.flatnonzero(label >= 0))
    n_dev = max(1, round(DEV_SHARE * len(given)))
    dev, rows = given[:n_dev], given[n_dev:] if len(given) > n_dev else given
    y = torch.from_numpy(label)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=DECAY)
    best, kept, n_worse = float("inf"), deepcopy(student.state_dict()), 0
    for _ in range(MOST_EPOCHS):
        for batch in _deal(rows, rng):
            optimizer.zero_grad()
            fit: Any = cross_entropy(student(x[batch])[0], y[batch])
            fit.backward()
            optimizer.step()
        with torch.no_grad():
            loss = cross_entropy(student(x[dev])[0], y[dev]).item()
        n_worse = 0 if loss < best else n_worse + 1
        if loss < best:
            best, kept = loss, deepcopy(student.state_dict())
        if n_worse == PATIENCE:
            break
    student.load_state_dict(kept)


def _teach(student: _Student, x: torch.Tensor, rng: np.random.Generator, settings: CosineSettings) -> Confidence:
    """Let the student learn from what it was at the beginning of each round."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE / 4, weight_decay=DECAY)
    for _ in range(N_ROUNDS):
        confidence = judge_rows(_predict(student, x), settings.least)
        learned = np.flatnonzero(confidence.is_learned)
        if len(learned) < 2:
            return confidence
        soft = torch.from_numpy(confidence.soft).float()
        weight = torch.from_numpy(confidence.weight).float()
        batches: list[Int64] = []
        while len(batches) < ROUND_STEPS:
            batches += _deal(learned, rng)
        for batch in batches[:ROUND_STEPS]:
            optimizer.zero_grad()
            logits, features = student(x[batch])
            loss: Any = compute_loss(logits, features, soft[batch], weight[batch], settings)
            loss.backward()
            optimizer.step()
    return judge_rows(_predict(student, x), settings.least)


def _deal(rows: Int64, rng: np.random.Generator) -> Sequence[Int64]:
    """Return all rows once, in batches."""
    dealt = rng.permutation(rows)
    return [dealt[start : start + BATCH] for start in range(0, len(dealt), BATCH)]
