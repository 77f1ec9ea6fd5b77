"""What a call of `correct` is about: rows, who writes, and who judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from thresher.artifacts.manifest import digest, versions
from thresher.curation.correction.settings import CorrectOptions, CorrectSettings
from thresher.dataset import Dataset, ensure_dataset
from thresher.dataset.provenance import describe_reading
from thresher.errors import InputError, SettingsError
from thresher.models.settings import ModelSettings
from thresher.progress import Progress
from thresher.validation import split_options

if TYPE_CHECKING:
    from thresher.features import FeatureContext

RECIPE = "correct-1"
VERDICT = (
    "Question:\n{prompt}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\nWhich answer is better?\n(A) Answer A\n"
    "(B) Answer B\n\nThe output should be the letter A or B only."
)


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

        models = {"model": load_generator(self.writer), "judge": load_generator(self.judge)}
        return {
            "eta": self.settings.eta,
            "column": self.settings.column,
            "max_new_tokens": self.settings.max_new_tokens,
            "pool": self.pool.fingerprint,
            **{role: {"name": who.name, "fingerprint": who.fingerprint} for role, who in models.items()},
        }

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
    judge = writer.with_models(model=settings.judge or _find_base(models.model))
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


def _find_base(model: str) -> str:
    """Return the name of an adapter's base.

    Raises:
        InputError: the model is no adapter.
    """
    from thresher.models.adapter_files import ADAPTER_CONFIG
    from thresher.models.causal_lm.adapter import read_base_name
    from thresher.models.server_address import ServerAddress, is_server

    folder = Path(model).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        return read_base_name(folder)
    # an address may hold a password
    shown = ServerAddress.parse(model).url if is_server(model) else model
    raise InputError(
        f"correct: '{shown}' is not an adapter whose base could judge; name the judge (--judge MODEL), ideally "
        f"the model before fine-tuning"
    )
