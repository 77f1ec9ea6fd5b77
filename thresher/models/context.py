"""What a model run needs to know: which models, which cache, and who listens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from thresher.cache.feature_cache import FeatureCache
from thresher.models.settings import ModelSettings
from thresher.progress import OnProgress


@dataclass(frozen=True, kw_only=True)
class ModelContext:
    """Models, cache and listener.

    Attributes:
        models: which models are run, and how.
        cache: where finished values are stored; None computes everything anew.
        on_progress: called after each batch, and with a note when there is one.
    """

    models: ModelSettings = field(default_factory=ModelSettings)
    cache: FeatureCache | None = field(default_factory=FeatureCache)
    on_progress: OnProgress | None = None

    def with_models(self, **changes: Any) -> Self:
        """Return this context with other model settings."""
        return replace(self, models=replace(self.models, **changes))
