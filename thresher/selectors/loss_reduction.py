"""What the methods share that ask how much of a row's loss is gone under a reference model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.features.container import Features
from thresher.features.reference_adapters import RequiredAdapter
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Array, Float64
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores
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

    def _score(self, features: Features, value: Float64, reasons: Array | None = None) -> Scores:
        """Return the values of rows with both losses and no reason ("") to exclude them."""
        excluded = features.missing_reasons("loss", "reference_loss", other=reasons)
        value = np.where(excluded.is_null().to_numpy(), value, -np.inf)
        return Scores(row_id=features.row_id, value=value, by=self.name, excluded=excluded)

    @property
    def _adapter(self) -> RequiredAdapter:
        raise NotImplementedError
