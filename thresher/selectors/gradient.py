"""Gradient: rows whose training step goes where a target wants to go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.features.reference_adapters import RequiredAdapter
from thresher.features.requirements import Requirements
from thresher.features.settings import GradientSettings, Precondition
from thresher.numeric.arrays import Array
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores
from thresher.validation import option

NO_TARGET = "gradient: needs rows of a target, found none; give --target FILE"
BLOCK_CELLS = 1 << 24  # entries of the gradients taken to float32 at a time


@dataclass(frozen=True, kw_only=True)
class Gradient(Selector):
    """Rank rows by how far a training step on each alone would lower a target's loss (LESS).

    Optimizes the sum over the picks of max over tasks of mean over the task's rows z' of sum over
    checkpoints c of rate_c * cos(AdamW's step on z at c, gradient of the loss of z' at c), with the
    learning rates as shares (LESS). The parameters are those of a LoRA adapter in its warm-up.

    Source: Xia et al. 2024, arXiv:2402.04333 (LESS). Cost: training an adapter on `share` of the
    pool for `epochs` epochs; then at each of as many checkpoints a forward and a backward pass over
    pool and target, about 3 * epochs passes of the model, and 4 * epochs * tasks bytes per row; in
    memory the weights of the adapter once for each task. Finished rows are kept, so a killed run
    goes on. Needs: `influence` of the pool on the target's rows (--target); with `dim`, `gradient`
    of the pool and `target_gradient` of the target; from --model or the default one. Ties: to the
    lowest row, so equal rows stay together. An empty pool is refused. A row with no token to score
    is excluded with its reason. Fails: it costs far more than `target-similarity` with
    kernel=hidden_state (RDS+), which did better on average: 46.4 against 44.2 from 200 thousand
    rows, random rows 40.9, mean of seven tasks (Ivison et al. 2025, arXiv:2503.01807; LESS could
    not be afforded on their larger pool). What the target lacks is not kept, and rows of the target
    in the pool come first. Equal rows pull alike, so repeats come together. Target rows that the
    warm-up has learned have small gradients whose direction is noise.

    Attributes:
        checkpoints: folder of a warm-up that kept its epochs (`trained/` in the cache); default: it
            is trained.
        share: of the pool that the warm-up learns from, drawn by the seed.
        epochs: of the warm-up, one checkpoint each.
        dim: numbers that stand for a gradient at one checkpoint, kept so that the next target needs
            no pass over the pool. The error of a cosine is about 1 / sqrt(dim), and 1 / sqrt(dim *
            epochs) of their mean, often more than rows differ by: set 8,192 or more. Default: no
            sketch; cosines are exact, and another target is another pass.
        by: column of the target whose values are its tasks; default: the target is one task.
        precondition: "adam": gradients of the pool go through AdamW's moments (LESS); "factors":
            they are divided by the small factors of LoRA's matrices, an approximate influence
            function in place of a step (Martens and Grosse 2015, arXiv:1503.05671; Grosse et al.
            2023, arXiv:2308.03296). What it gains over `bm25` is for `thresher compare` to say.

    Differs: AdamW's moments are corrected for their start at 0 and epsilon stands outside the root,
    as the optimizer itself has it (the official code does neither). There is no random projection:
    the products with the target are exact. With `dim`, gradients go into a sparse sketch of random
    signs, one addition per weight, in place of a dense projection to 8,192, and each checkpoint has
    a sketch of its own: an entry estimates as well. The rank and the learning
    rate of the warm-up are those of `thresher train`.
    """

    name: ClassVar[str] = "gradient"

    checkpoints: str | None = option(None, ge=1)
    share: float = option(0.05, ge=1e-6, le=1)
    epochs: int = option(4, ge=1)
    dim: int | None = option(None, ge=1)
    by: str | None = None
    precondition: Precondition = option("adam")

    @property
    def requirements(self) -> Requirements:
        """Influence on the target, or gradients of both sides, at given or trained checkpoints."""
        how = GradientSettings(epochs=self.epochs, precondition=self.precondition)
        features: set[str] = set()
        if self.dim is None:
            how, side_features = replace(how, by=self.by), {"influence"}
        else:
            how, features = replace(how, dim=self.dim), {"gradient"}
            side_features = {"target_gradient"} | ({f"column:{self.by}"} if self.by else set())
        settings: dict[str, Any] = {"gradient": how}
        warm_up = RequiredAdapter(role="checkpoints", epochs=self.epochs, share=self.share, keeps_epochs=True)
        return Requirements(
            features=features,
            side_features={"target": side_features},
            required_roles={"target"},
            feature_settings=settings if self.checkpoints is None else {**settings, "checkpoints": self.checkpoints},
            adapters=(warm_up,) if self.checkpoints is None else (),
        )

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row that has a gradient.

        Raises:
            InputError: there is no target.
        """
        if self.dim is None:
            by_task = features.context.get("target_influence")  # (n, tasks), NaN without a value
            if by_task is None:
                raise InputError(NO_TARGET)
            influence, n_tasks = by_task.max(axis=1).astype(np.float64), by_task.shape[1]
            excluded = features.missing.get("target_influence")
            notes = {"n_tasks": n_tasks}
        else:
            # (q, checkpoints * dim) float16
            target = features.context.get("target_target_gradient")
            if target is None or not len(target):
                raise InputError(NO_TARGET)
            means = compute_task_means(target, features.context.get(f"target_column:{self.by}"))
            influence = find_largest_product(features["gradient"], means)
            excluded = features.missing.get("gradient")
            notes = {"n_target_rows": len(target), "n_tasks": len(means)}
        value = np.where(np.isnan(influence), -np.inf, influence)
        return Scores(row_id=features.row_id, value=value, by=self.name, excluded=excluded, notes=notes)


def compute_task_means(target: Array, tasks: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Return (t, d) float32: the mean over the rows of each task, or over all."""
    if tasks is None:
        tasks = np.zeros(len(target), dtype=np.int64)
    return np.stack([target[tasks == task].astype(np.float32).mean(axis=0) for task in np.unique(tasks)])


def find_largest_product(vectors: Array, means: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (n,) float64: of each vector, the largest inner product with one of the means."""
    products = np.empty(len(vectors), dtype=np.float64)
    n_rows = max(1, BLOCK_CELLS // max(1, vectors.shape[1]))
    for first in range(0, len(vectors), n_rows):
        block = vectors[first : first + n_rows].astype(np.float32)
        products[first : first + n_rows] = (block @ means.T).max(axis=1)
    return products
