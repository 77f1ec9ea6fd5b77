"""What the methods share that ask how much of a row's loss is gone under a reference model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.features.container import Features
from thresher.features.reference_adapters import RequiredAdapter
from thresher.features.requirements import Requirements
from thresher.selectors.contract import Selector
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class LossReduction(Selector):
    """A method on the difference of a model's loss and a reference's.

    Attributes:
        reference: folder or Hub id of the reference, or folder of its adapter on the base; default:
            an adapter is trained.
    """

    reference: str | None = option(None, ge=1)

    @property
    def requirements(self) -> Requirements:
        """Both losses, and the adapter to train where no reference is given."""
        both = {"loss", "reference_loss"}
        if self.reference is not None:
            return Requirements(features=both, feature_settings={"reference": self.reference})
        return Requirements(features=both, adapters=(self._adapter,))

    @property
    def _adapter(self) -> RequiredAdapter:
        raise NotImplementedError


def compute_loss_reduction(features: Features) -> tuple[NDArray[np.float64], pl.Series]:
    """Return how much of each row's loss is gone under the reference, and why some rows have no loss.

    Args:
        features: hold `loss` and `reference_loss`.

    Returns:
        (n,) float64 nats per token, NaN where a loss is; (n,) string, null where both are there.
    """
    reduction: NDArray[np.float64] = features["loss"] - features["reference_loss"]
    return reduction, features.missing_reasons("loss", "reference_loss")
