"""`reference_loss`: the loss of the rows under a model that has learned such rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from thresher.errors import InputError
from thresher.features.context import FeatureContext
from thresher.features.loss import Loss, row_reader
from thresher.features.providers import Measured

if TYPE_CHECKING:
    from thresher.dataset import Dataset

NO_REFERENCE = (
    "needs a reference that has learned such rows, found none; train one for 1 epoch "
    "(thresher train POOL --model MODEL --epochs 1 --control none --out REFERENCE) and give --set reference=REFERENCE"
)


class ReferenceLoss:
    """`loss` under `context.reference` instead of the model: the same rows, the same tokens, the same reasons."""

    name: ClassVar[str] = "reference_loss"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the reference model, what is scored, and the fingerprint of both.

        Raises:
            InputError: there is no reference, it is the model itself, or it reads text as other tokens.
        """
        return Loss().describe(_asking_reference(context))

    def compute(self, dataset: Dataset, context: FeatureContext) -> Measured:
        """Return (n,) float64, NaN with its reason for a row without a scored token.

        Raises:
            InputError: there is no reference, it is the model itself, or it reads text as other tokens.
        """
        self._loss = Loss()  # kept, so that the features computed after this one share the loaded model
        return self._loss.compute(dataset, _asking_reference(context))


def _asking_reference(context: FeatureContext) -> FeatureContext:
    """Return the context whose model is the reference, once its losses can be compared with those of the model."""
    if context.reference is None:
        raise InputError(f"reference_loss: {NO_REFERENCE}")
    asking = replace(context, model=context.reference)
    reference, base = row_reader(asking), row_reader(context)
    if reference.lm.fingerprint == base.lm.fingerprint:
        raise InputError(
            f"reference_loss: model and reference must differ, got '{base.lm.name}' and '{reference.lm.name}' with the "
            f"same files; give what was trained as the reference"
        )
    ours, theirs = (reader.lm.tokenizer for reader in (base, reference))
    is_same = ours.get_vocab() == theirs.get_vocab() and ours.chat_template == theirs.chat_template
    if not is_same or reference.max_length != base.max_length:
        raise InputError(
            f"reference_loss: both models must read a row as the same tokens, got '{reference.lm.name}' with another "
            f"vocabulary, chat template or longest input than '{base.lm.name}'; give the reference's base as --model"
        )
    return asking
