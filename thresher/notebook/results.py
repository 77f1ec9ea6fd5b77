"""Any result, read back: `th.open(folder)`; and its page: `th.report(result)`.

Every result has `manifest`; those that hold rows can be iterated and turned into tables.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.stored import read_json
from thresher.errors import InputError, ManifestError, first_three

if TYPE_CHECKING:
    from collections.abc import Callable

_READERS = {  # kind of a manifest -> what reads such a folder
    "subset": "thresher.subset.subset:open_subset",
    "adapter": "thresher.trainer.adapter:Adapter.read",
    "curve": "thresher.experiments.curve_io:read_curve",
    "comparison": "thresher.experiments.comparison:read_comparison",
    "tuning": "thresher.experiments.tuning:read_tuning",
    "advice": "thresher.notebook.results:read_advice",
    "curated": "thresher.dataset.loading:load",
    "corrected": "thresher.dataset.loading:load",
    "snapshot": "thresher.dataset.loading:load",
}


@runtime_checkable
class HasFolder(Protocol):
    """A result that may have been written to a folder."""

    @property
    def path(self) -> Path | None:
        """The folder, or None when none was asked for."""
        ...


def open(folder: str | Path) -> Any:  # noqa: A001 - the word that people try first
    """Read any folder that thresher wrote.

    Args:
        folder: written by `select`, `train`, `learning_curve`, `compare`, `tune`, `advise`,
            `curate`, `correct` or a job.

    Returns:
        What the function that wrote it returned: a Subset, an Adapter, a LearningCurve, a
        Comparison, a Tuning or an Advice; of cleaned or corrected rows and of a snapshot the
        Dataset of the rows that are kept.

    Raises:
        ManifestError: it is no such folder, or a file of it is damaged or missing.
    """
    path = expand_path(localize(folder))
    if not path.is_dir():
        what = "a file; read rows with th.load" if path.exists() else "nothing"
        raise ManifestError(f"{path}: must be a folder that thresher wrote, found {what}")
    kind = str(Manifest.read(path).content.get("kind"))
    if kind not in _READERS:
        raise ManifestError(f"{path}: must hold one of {', '.join(_READERS)}, found '{kind}'")
    return _find_reader(_READERS[kind])(path)


def read_advice(folder: Path) -> Any:
    """Read the folder of `advise`."""
    from thresher.experiments.advice.advise import ADVICE, Advice

    return Advice(content=read_json(folder / ADVICE), path=folder, manifest=Manifest.read(folder))


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
    from thresher.reporting.build import report as write_report
    from thresher.subset.subset import Subset

    if isinstance(result, str | Path):
        return write_report(result)
    if isinstance(result, Subset):
        return write_report(result.save(Path(tempfile.mkdtemp(prefix="thresher-")) / "subset"))
    if isinstance(result, HasFolder) and result.path is not None:
        return write_report(result.path)
    known = first_three(["a folder", "a Subset", "a LearningCurve", "a Comparison", "a Tuning", "an Adapter"])
    raise InputError(f"report: must be {known}, got {type(result).__name__}; give out=DIR to the call that made it")
