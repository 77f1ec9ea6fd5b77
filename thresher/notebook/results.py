"""Any result, read back: `th.open(folder)`; and its page: `th.report(result)`.

The shape that all of them share is `artifacts/result.py`.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.result import Result
from thresher.errors import InputError, ManifestError, first_three

if TYPE_CHECKING:
    from collections.abc import Callable

_READERS = {  # kind of a manifest -> what reads such a folder
    "subset": "thresher.subset.subset:open_subset",
    "adapter": "thresher.trainer.adapter:Adapter.read",
    "curve": "thresher.experiments.curve_io:read_curve",
    "comparison": "thresher.experiments.comparison:read_comparison",
    "tuning": "thresher.experiments.tuning:read_tuning",
    "experts": "thresher.experiments.experts.experts:read_experts",
    "soup": "thresher.experiments.soups.soup:read_soup",
    "why": "thresher.experiments.attribution.why:read_explanation",
    "advice": "thresher.experiments.advice.advise:read_advice",
    "bases": "thresher.experiments.bases.rank:read_ranking",
    "transfer": "thresher.experiments.bases.transfer:read_transfer",
    "mix": "thresher.experiments.mixing.mix:read_mix",
    "sources": "thresher.experiments.bases.sources:read_sources",
    "curated": "thresher.curation.result:Curated.read",
    "corrected": "thresher.curation.correction.correct:Corrected.read",
    "asked": "thresher.labeling.ask:Asked.read",
    "joined": "thresher.labeling.weak.join:Joined.read",
    "label-budget": "thresher.experiments.prices.label_budget:LabelBudget.read",
    "refined": "thresher.labeling.weak.refine:Refined.read",
    "labeled": "thresher.labeling.add:Labeled.read",
    "grown-rounds": "thresher.experiments.grown.rounds:GrownRounds.read",
    "grown": "thresher.dataset.loading:load",
    "snapshot": "thresher.dataset.loading:load",
}


def open(folder: str | Path) -> Any:  # noqa: A001 - the word that people try first
    """Read any folder that thresher wrote.

    Args:
        folder: written by `select`, `train`, `learning_curve`, `compare`, `tune`, `advise`,
            `curate`, `correct`, `label`, `grow` or a job; or the table that `score` wrote.

    Returns:
        What the function that wrote it returned: a Subset, an Adapter, a LearningCurve, a
        Comparison, a Tuning, an Advice, a BaseRanking, a SourceRanking, a Mix, a Transfer, Experts,
        a Soup, an Explanation, a Curated, a Corrected, an Asked, a Labeled, a Joined, a Refined, a
        LabelBudget, a GrownRounds or a FeatureTable; of grown rows and of a snapshot of a job the
        Dataset of the rows.

    Raises:
        ManifestError: it is no such folder, or a file of it is damaged or missing.
    """
    path = expand_path(localize(folder))
    if path.is_file():
        from thresher.features.table import FeatureTable

        return FeatureTable.read(path)
    if not path.is_dir():
        raise ManifestError(f"{path}: must be a folder that thresher wrote, found nothing")
    kind = str(Manifest.read(path).content.get("kind"))
    if kind not in _READERS:
        raise ManifestError(f"{path}: must hold one of {', '.join(_READERS)}, found '{kind}'")
    return _find_reader(_READERS[kind])(path)


def _find_reader(where: str) -> Callable[[Path], Any]:
    module, _, names = where.partition(":")
    reader: Any = importlib.import_module(module)
    for name in names.split("."):
        reader = getattr(reader, name)
    return reader  # type: ignore[no-any-return]


def report(result: Any) -> Path:
    """Write the page of a result, `report.html`, and each of its figures as PNG and SVG.

    Args:
        result: a folder that thresher wrote, or what a function of thresher returned. One that was
            not written to a folder is written to a temporary one first.

    Returns:
        The path of the page.

    Raises:
        ManifestError: the folder is of a kind without a page, or one of its files is missing or
            damaged.
        InputError: the object has no page.
        MissingExtraError: the packages of the extra `report` are not installed.
    """
    from thresher.curation.result import Curated
    from thresher.reporting.build import report as write_report
    from thresher.subset.subset import Subset

    if isinstance(result, str | Path):
        return write_report(result)
    if isinstance(result, Result) and result.path is not None:
        return write_report(result.path)
    if isinstance(result, Subset | Curated):
        return write_report(result.save(Path(tempfile.mkdtemp(prefix="thresher-")) / "rows"))
    known = first_three(["a folder", "a Subset", "a LearningCurve", "a Comparison", "a Tuning", "an Adapter"])
    raise InputError(f"report: must be {known}, got {type(result).__name__}; give out=DIR to the call that made it")
