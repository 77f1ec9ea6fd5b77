"""What feature providers are told: which models to run, and what is measured beside the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from thresher.errors import SettingsError
from thresher.features.reference_adapters import TrainedFolder
from thresher.features.settings import AnswerAccuracySettings, ConfidenceSettings, GradientSettings, PassRateSettings
from thresher.models.context import ModelContext
from thresher.models.device import check_device
from thresher.models.encoders.encoder import AUTO
from thresher.models.encoders.load import resolve_encoder
from thresher.models.settings import ModelSettings
from thresher.validation import get_field_types

if TYPE_CHECKING:
    from thresher.dataset import Dataset

N_EXAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class FeatureContext(ModelContext):
    """Settings of the feature arrow.

    Attributes:
        reference: language model behind `reference_loss`: one that has learned the rows, such as an
            adapter, or a folder of adapters that were trained for it.
        examples: rows whose worth as examples `in_context_utility` measures; None for the rows
            themselves.
        n_examples: of these, how many are tried for each row; None for all.
        confidence: how `confidence` asks the model and weighs what it says.
        answer_accuracy: how `answer_accuracy` asks the model.
        pass_rate: how `pass_rate` asks the model and checks its answers.
        checkpoints: folder of an adapter on the model that was kept after each epoch, at which
            gradients are taken.
        gradient: how gradients are stored.
        is_default_encoder: whether nobody named the encoder.
        own_text: whether `embedding` reads what rows say of their own, without text that many
            share.
        given: hash of each feature that the user brought, by name; the values are in the dataset.
    """

    reference: str | TrainedFolder | None = None
    examples: Dataset | None = None
    n_examples: int | None = N_EXAMPLES
    confidence: ConfidenceSettings = field(default_factory=ConfidenceSettings)
    answer_accuracy: AnswerAccuracySettings = field(default_factory=AnswerAccuracySettings)
    pass_rate: PassRateSettings = field(default_factory=PassRateSettings)
    checkpoints: str | TrainedFolder | None = None
    gradient: GradientSettings = field(default_factory=GradientSettings)
    is_default_encoder: bool = field(default=False, compare=False)
    own_text: bool = False
    given: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an illegal number of examples.

        Raises:
            SettingsError: n_examples is below 1.
        """
        if self.n_examples is not None and self.n_examples < 1:
            raise SettingsError(f"features: n_examples must be a whole number of at least 1, got {self.n_examples}")

    def resolved(self) -> Self:
        """Return this context with the encoder that "auto" means on this machine.

        Raises:
            SettingsError: there is no such device.
        """
        check_device(self.models.device)
        context = self.with_models(encoder=resolve_encoder(self.models.encoder, device=self.models.device))
        is_default = self.is_default_encoder or self.models.encoder in (None, AUTO)
        return replace(context, is_default_encoder=is_default)


def make_context(**options: Any) -> FeatureContext:
    """Return a context from fields of `ModelSettings` and `FeatureContext` alike.

    Args:
        **options: fields of either class, by name.

    Raises:
        SettingsError: a value is illegal.
    """
    models = {name: options.pop(name) for name in get_field_types(ModelSettings) if name in options}
    return FeatureContext(models=ModelSettings(**models), **options)
