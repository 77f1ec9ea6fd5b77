"""`reference_loss`: the loss of the rows under a model that has learned such rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl

from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.context import FeatureContext
from thresher.features.cost import estimate_stages, merge_costs
from thresher.features.likelihood.loss import Loss, load_row_tokenizer
from thresher.features.reference_adapters import TrainedFolder, assign_folds
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.models.causal_lm.tokenized_rows import row_texts
from thresher.models.stages import StageCost

if TYPE_CHECKING:
    from thresher.dataset import Dataset

NO_REFERENCE = "needs a reference that has learned similar rows, found none; give --reference MODEL, or an adapter"


class ReferenceLoss(FeatureProvider):
    """`loss` under `context.reference` in place of the model: the same rows, tokens and reasons.

    The reference is a model, an adapter, or a folder of cross-fitted adapters: then each row is
    scored by the adapter that has not seen it.
    """

    name: ClassVar[str] = "reference_loss"
    passes: ClassVar[str] = "the reference reads each of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the reference model, what is scored, and the fingerprint of both.

        Raises:
            InputError: there is no reference, it is the model itself, or it reads text as other
                tokens.
        """
        folder = _find_folder(context)
        if folder is None:
            return Loss().describe(_with_reference(context, context.reference))
        about = Loss().describe(context)  # a folder may be planned: nothing of it is read here
        kind = "adapter" if folder.n_folds == 1 else f"{folder.n_folds} cross-fitted adapters"
        fingerprint = combine_fingerprints(about["fingerprint"], folder.identity)
        return about | {"model": f"{kind} on {about['model']}", "fingerprint": fingerprint}

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) float64, NaN with its reason for a row without a scored token.

        Raises:
            InputError: there is no reference, it is the model itself, or it reads text as other
                tokens.
        """
        folder = _find_folder(context)
        # referenced, so that the features computed after this one share the loaded model
        self._loss = Loss()
        if folder is None:
            return self._loss.compute(dataset, _with_reference(context, context.reference))
        if folder.n_folds == 1:
            return self._loss.compute(dataset, _with_reference(context, str(folder.adapters[0])))
        fold = assign_folds(row_texts(dataset), folder.n_folds)
        values = np.full(len(dataset), np.nan)
        missing = np.full(len(dataset), None, dtype=object)
        notes: dict[str, int] = {}
        for number in np.unique(fold).tolist():
            at = np.flatnonzero(fold == number)
            adapter = str(folder.adapters[number])  # it has not learned the rows of this fold
            part = self._loss.compute(dataset.take(at), _with_reference(context, adapter))
            values[at], missing[at] = part.values, part.missing.to_numpy()
            notes = {name: notes.get(name, 0) + count for name, count in part.notes.items()}
        return FeatureValues(
            values=values, missing=pl.Series("missing", missing.tolist(), dtype=pl.String), notes=notes
        )

    def estimate_cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
        """Return what scoring takes; where adapters are not trained, as the base model shows."""
        folder = _find_folder(context)
        is_planned = folder is not None and not folder.is_there
        provider = Loss() if is_planned else self
        return [merge_costs(self.name, estimate_stages(provider, dataset, context, reads_cache=not is_planned))]


def _find_folder(context: FeatureContext) -> TrainedFolder | None:
    """Return the folder of trained adapters that is the reference, or None for another one."""
    if isinstance(context.reference, str):
        return TrainedFolder.find(context.reference)
    return context.reference


def _with_reference(context: FeatureContext, name: str | TrainedFolder | None) -> FeatureContext:
    """Return the context with the reference as model, once their losses can be compared."""
    if not isinstance(name, str):
        raise InputError(f"reference_loss: {NO_REFERENCE}")
    changed = context.with_models(model=name)
    reference, base = load_row_tokenizer(changed), load_row_tokenizer(context)
    if reference.lm.fingerprint == base.lm.fingerprint:
        raise InputError(
            f"reference_loss: model and reference must differ, got '{base.lm.name}' and '{reference.lm.name}' with the "
            f"same files; give what was trained as the reference"
        )
    ours, theirs = (rows.lm.tokenizer for rows in (base, reference))
    is_same = ours.get_vocab() == theirs.get_vocab() and ours.chat_template == theirs.chat_template
    if not is_same or reference.max_length != base.max_length:
        raise InputError(
            f"reference_loss: both models must read a row as the same tokens, got '{reference.lm.name}' with another "
            f"vocabulary, chat template or longest input than '{base.lm.name}'; give the reference's base as --model"
        )
    return changed
