"""What a call of `correct` is about: rows, who writes, and who judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from thresher.artifacts.manifest import digest, versions
from thresher.curation.correction.judge import VERDICT, find_judge
from thresher.curation.correction.settings import ABSTENTION, CorrectOptions, CorrectSettings
from thresher.dataset import Dataset, ensure_dataset
from thresher.dataset.provenance import describe_reading
from thresher.errors import InputError, SettingsError
from thresher.models.settings import ModelSettings
from thresher.progress import Progress
from thresher.validation import split_options

if TYPE_CHECKING:
    from thresher.features import FeatureContext

RECIPE = "correct-2"


@dataclass(frozen=True, kw_only=True)
class CorrectionCall:
    """Rows, who writes, who judges, and how."""

    pool: Dataset
    writer: FeatureContext
    judge: FeatureContext
    settings: CorrectSettings

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of the request, in JSON values."""
        from thresher.models.generation.load import load_generator

        models = {"model": load_generator(self.writer)}
        if not self.settings.abstain:
            models["judge"] = load_generator(self.judge)
        return {
            **self._describe_abstention(),
            "eta": self.settings.eta,
            "column": self.settings.column,
            "max_new_tokens": self.settings.max_new_tokens,
            "pool": self.pool.fingerprint,
            **{role: {"name": who.name, "fingerprint": who.fingerprint} for role, who in models.items()},
        }

    def _describe_abstention(self) -> dict[str, Any]:
        """Return what decides on refusals; nothing where none is asked for."""
        from thresher.features.answers.meaning import describe_meaning

        if not self.settings.abstain:
            return {}
        meaning = describe_meaning(self.writer, self.settings.entailment)
        shown = {name: getattr(self.settings, name) for name in ABSTENTION}
        return {"abstain": {**shown, **meaning}}

    def identity(self) -> str:
        """Return the hash of everything that determines the result."""
        request = {"recipe": [RECIPE, VERDICT], **self.describe()}
        return digest({"request": request, "read": describe_reading(self.pool), "thresher": versions(())})


def plan_call(
    pool: Any, *, on_progress: Callable[[Progress], None] | None = None, **options: Unpack[CorrectOptions]
) -> CorrectionCall:
    """Load and check what `correct` was given; arguments and errors are those of it."""
    from thresher.features import FeatureContext

    settings, models = split_options("correct", options, CorrectSettings, ModelSettings)
    if models.model is None:
        raise SettingsError("correct: needs a model that writes candidates, found none; give model=NAME")
    rows = ensure_dataset(pool)
    _check_rows(rows, settings.column)
    writer = FeatureContext(models=models, on_progress=on_progress)
    # who abstains asks no judge
    judge = writer if settings.abstain else writer.with_models(model=settings.judge or find_judge(models.model))
    return CorrectionCall(pool=rows, writer=writer, judge=judge, settings=settings)


def _check_rows(rows: Dataset, column: str) -> None:
    if rows.kind != "sft":
        raise InputError(
            f"correct: rows need a prompt and a response, found rows of kind '{rows.kind}'; for wrong labels see "
            f"the curation rule label-issues"
        )
    if column in rows.column_names:
        raise InputError(
            f"correct: the rows already have a column '{column}', which would be overwritten; choose another column"
        )
