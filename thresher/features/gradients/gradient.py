"""`gradient` and `target_gradient`: which way a row pulls the adapter of a language model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.cache.by_text import compute_cached
from thresher.cache.dry_run import StageCost
from thresher.cache.fingerprint import combine_fingerprints
from thresher.cache.memory_map import empty_array
from thresher.errors import InputError
from thresher.features.cost import merged, run_rehearsal
from thresher.features.likelihood.loss import Loss, load_row_tokenizer
from thresher.features.reference_adapters import TrainedFolder
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.models.causal_lm.tokenized_rows import PROBLEMS, RECIPE, RowTokenizer, row_texts
from thresher.models.token_batches import BATCH_TOKENS
from thresher.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext
    from thresher.features.gradients.per_example import AdapterState, RowGradients

OWN_RECIPE = "gradient-2"
STORED_AS = {"gradient": "gradient", "target_gradient": "gradient_plain"}  # in the cache, from before a renaming
WINDOW_ROWS = 1024  # rows tokenized and sorted by length together
BACKWARD = 3.0  # a forward and a backward pass, in forward passes
NO_CHECKPOINTS = (
    "needs adapters that were kept after each epoch with the state of their optimizer, found none; give their folder "
    "as `checkpoints`, or choose with the method 'gradient', which trains them where that setting is left out"
)


class Gradient(FeatureProvider):
    """Sketches of the steps that AdamW would take on a row alone: what training on it does to the adapter.

    At each checkpoint of the adapter the gradient of the row's mean loss goes through AdamW's
    moments, into a sketch of `dim` numbers and to length 1, times the square root of the
    checkpoint's share of the learning rate. The checkpoints stand side by side: the inner product
    with `target_gradient` is the cosine of LESS, averaged over checkpoints by their learning rates
    (Xia et al. 2024, arXiv:2402.04333). A row is read as `loss` reads it.
    """

    name: ClassVar[str] = "gradient"
    passes: ClassVar[str] = "forward and backward over each of the n rows, at each checkpoint"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, the checkpoints, what is read of a row, and the fingerprint of all."""
        return _describe(context, self.name)

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, checkpoints * dim) float16, NaN with its reason for a row without a scored token."""
        return _compute(dataset, context, self.name, is_preconditioned=True)

    def estimate_cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
        """Return what it will take; where no adapter is trained yet, as the base model shows."""
        return _cost(self, dataset, context)


class TargetGradient(FeatureProvider):
    """The same of the plain gradient, without AdamW's moments: which way a row would have the adapter go."""

    name: ClassVar[str] = "target_gradient"
    passes: ClassVar[str] = "forward and backward over each of the n rows, at each checkpoint"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, the checkpoints, what is read of a row, and the fingerprint of all."""
        return _describe(context, self.name)

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, checkpoints * dim) float16, NaN with its reason for a row without a scored token."""
        return _compute(dataset, context, self.name, is_preconditioned=False)

    def estimate_cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
        """Return what it will take; where no adapter is trained yet, as the base model shows."""
        return _cost(self, dataset, context)


def _describe(context: FeatureContext, feature: str) -> dict[str, str]:
    about = Loss().describe(context)
    about["dim"] = str(context.gradient.dim)
    how = f"{STORED_AS[feature]}-{OWN_RECIPE}-{RECIPE}-{context.gradient.dim}"
    return about | {"fingerprint": combine_fingerprints(about["fingerprint"], _folder(context).identity, how)}


def _compute(dataset: Dataset, context: FeatureContext, feature: str, *, is_preconditioned: bool) -> FeatureValues:
    from thresher.features.gradients.per_example import AdapterState

    folder, reader, dim = _folder(context), load_row_tokenizer(context), context.gradient.dim
    paths = folder.epochs()
    if not paths:
        raise InputError(f"{feature}: {NO_CHECKPOINTS}")
    states = [AdapterState.read(path) for path in paths]
    rates = np.array([state.rate for state in states])
    share = rates / rates.sum()
    texts = row_texts(dataset)
    folder_of_cache = None if context.cache is None else context.cache.root
    out = empty_array((len(dataset), len(states) * dim), np.float16, folder_of_cache or Path(tempfile.gettempdir()))
    for number, state in enumerate(states):
        values = _at_checkpoint(
            texts, context, feature, state, number=number, reader=reader, is_preconditioned=is_preconditioned
        )
        if values is not None:
            np.multiply(values, np.sqrt(share[number]), out=out[:, number * dim : (number + 1) * dim], casting="unsafe")
    return _measured(feature, out, texts, reader, context)


def _at_checkpoint(
    texts: pl.Series,
    context: FeatureContext,
    feature: str,
    state: AdapterState,
    *,
    number: int,
    reader: RowTokenizer,
    is_preconditioned: bool,
) -> NDArray[Any] | None:
    """Return (n, dim) float16 of length 1, NaN for rows without a scored token; None without rows."""
    loaded: list[RowGradients] = []

    def batches(wanted: pl.Series) -> Iterator[Batch]:
        if not loaded:  # no model is loaded where the cache has all
            loaded.append(_loaded(context, reader, state, number))
        for start in range(0, len(wanted), WINDOW_ROWS):
            readings = reader.read(wanted[start : start + WINDOW_ROWS].to_list())
            fine = np.array([i for i, each in enumerate(readings) if not each.problem], dtype=np.int64)
            rest = np.array([i for i, each in enumerate(readings) if each.problem], dtype=np.int64)
            if len(rest):
                yield Batch(start + rest, np.full((len(rest), context.gradient.dim), np.nan, np.float16))
            rows = [readings[i].row for i in fine]
            for found in loaded[0].batches(
                rows, batch_tokens=context.models.batch_tokens or BATCH_TOKENS, is_preconditioned=is_preconditioned
            ):
                reader.lm.n_tokens += sum(rows[i].n_read for i in found.positions)
                yield Batch(start + fine[found.positions], found.values)

    partition = None
    if context.cache is not None:
        whole = combine_fingerprints(_describe(context, feature)["fingerprint"], str(number))
        partition = context.cache.partition(STORED_AS[feature], reader.lm.name, whole)
    stage = f"{feature} at checkpoint {number + 1}"
    return compute_cached(texts, batches, feature=stage, partition=partition, on_progress=context.on_progress)


def _loaded(context: FeatureContext, reader: RowTokenizer, state: AdapterState, number: int) -> RowGradients:
    from thresher.features.gradients.per_example import RowGradients
    from thresher.models.causal_lm.language_model import LanguageModel

    adapter = _folder(context).adapters[0]
    lm = LanguageModel(
        str(adapter), device=context.models.device, dtype=context.models.dtype
    )  # its own: weights are changed
    if lm.base.folder.resolve() != reader.lm.base.folder.resolve():
        raise InputError(
            f"gradient: the checkpoints in {adapter.parent} are of '{lm.base.name}', and the model is "
            f"'{reader.lm.name}'; give that base as --model"
        )
    return RowGradients(lm, state, dim=context.gradient.dim, number=number)


def _measured(
    feature: str, out: NDArray[Any], texts: pl.Series, reader: RowTokenizer, context: FeatureContext
) -> FeatureValues:
    """Return the values with the reasons of the rows that have none: these are read once more."""
    n_dim = max(1, out.shape[1])
    lacking = np.flatnonzero(np.isnan(out[:, : min(1, n_dim)]).any(axis=1))
    reasons = np.full(len(texts), None, dtype=object)
    if len(lacking):
        problems = [each.problem for each in reader.read(texts.gather(lacking).to_list())]
        reasons[lacking] = [PROBLEMS[problem] for problem in problems]
    notes = {"rows": len(texts), "rows_missing": len(lacking)}
    if len(lacking) and context.on_progress is not None:
        note = f"{feature}: {len(lacking):,} of {len(texts):,} rows have no value"
        context.on_progress(Progress(stage=feature, done=len(texts), total=len(texts), note=note))
    return FeatureValues(values=out, missing=pl.Series("missing", reasons.tolist(), dtype=pl.String), notes=notes)


def _cost(provider: Gradient | TargetGradient, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
    if _folder(context).is_there:
        return [merged(provider.name, run_rehearsal(provider, dataset, context))]
    base = merged(provider.name, run_rehearsal(Loss(), dataset, context, reads_cache=False))
    times = context.gradient.epochs
    return [
        replace(
            base,
            seconds=None if base.seconds is None else base.seconds * BACKWARD * times,
            tokens=None if base.tokens is None else base.tokens * times,
            bytes=base.n * times * context.gradient.dim * 2,
            note="a backward pass taken as two forward ones",
        )
    ]


def _folder(context: FeatureContext) -> TrainedFolder:
    """Return the folder of the checkpoints, there or promised.

    Raises:
        InputError: none was given, or what was given is not one.
    """
    given = context.checkpoints
    folder = TrainedFolder.find(given) if isinstance(given, str) else given
    if folder is None:
        found = "" if given is None else f" in '{given}'"
        raise InputError(f"gradient: {NO_CHECKPOINTS.replace('found none', f'found none{found}')}")
    return folder
