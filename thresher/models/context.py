"""What a model run needs to know: which models, which cache, and who listens.

Models are imported when one is loaded: most selections of few rows load none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from thresher.cache.feature_cache import FeatureCache
from thresher.models.settings import ModelSettings
from thresher.models.stages import Answers, RequestStage, Stage, StageRunner
from thresher.numeric.arrays import Array
from thresher.progress import OnProgress, Progress

if TYPE_CHECKING:
    from thresher.models.causal_lm.language_model import LanguageModel
    from thresher.models.encoders.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class ModelContext:
    """Models, cache and listener.

    Attributes:
        models: which models are run, and how.
        cache: where finished values are stored; None computes everything anew.
        on_progress: called after each batch, and with a note when there is one.
        runner: runs the stages of a computation, or estimates what they take.
        told: what the listener was told of the choice of a model, so that it is told once.
    """

    models: ModelSettings = field(default_factory=ModelSettings)
    cache: FeatureCache | None = field(default_factory=FeatureCache)
    on_progress: OnProgress | None = None
    runner: StageRunner = field(default_factory=StageRunner, repr=False, compare=False)
    told: set[str] = field(default_factory=set, repr=False, compare=False)

    def with_models(self, **changes: Any) -> Self:
        """Return this context with other model settings."""
        return replace(self, models=replace(self.models, **changes))

    def load_encoder(self) -> Encoder:
        """Return the sentence encoder, by its resolved name."""
        from thresher.models.encoders.load import load_encoder

        models = self.models
        return load_encoder(models.encoder, device=models.device, dtype=models.dtype, batch_tokens=models.batch_tokens)

    def load_language_model(self) -> LanguageModel:
        """Return the language model, the one in use already where there is one."""
        from thresher.models.causal_lm.language_model import language_model

        return language_model(self.resolve_model(), device=self.models.device, dtype=self.models.dtype)

    def resolve_model(self) -> str:
        """Return the name of the language model; where none is named, one is chosen."""
        from thresher.models.causal_lm.default_model import choose_model
        from thresher.models.causal_lm.embedded import expand_short_name

        name = self.models.model
        return choose_model(self._tell_once) if name is None else expand_short_name(name)

    def _tell_once(self, note: str) -> None:
        if note not in self.told:
            self.told.add(note)
            self.report_notes("model", 1, [note])

    def run_stage(self, stage: Stage) -> Array | None:
        """Return the (n, ...) values of a stage, stored ones from the cache; None without texts."""
        return self.runner.run_stage(stage, self.cache, self.on_progress)

    def run_requests(self, stage: RequestStage) -> Answers:
        """Return the answers of a server, by key."""
        return self.runner.run_requests(stage, self.cache)

    def report_notes(self, stage: str, n: int, notes: Iterable[str]) -> None:
        """Tell the listener what the user should know of a finished stage of n rows."""
        if self.on_progress is not None:
            for note in notes:
                self.on_progress(Progress(stage=stage, done=n, total=n, note=note))
