"""`report`: from an output folder to its page."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from thresher.artifacts.folder import write_atomic
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.remote.result import upload_files
from thresher.errors import ManifestError, MissingExtraError

if TYPE_CHECKING:
    from thresher.reporting.page import Page

REPORT = "report.html"
PAGES = {
    "advice": "thresher.reporting.pages.advice:build_advice_page",
    "bases": "thresher.reporting.pages.bases.ranking:build_ranking_page",
    "mix": "thresher.reporting.pages.bases.mix:build_mix_page",
    "sources": "thresher.reporting.pages.bases.sources:build_sources_page",
    "subset": "thresher.reporting.pages.subset:build_subset_page",
    "adapter": "thresher.reporting.pages.adapter:build_adapter_page",
    "curve": "thresher.reporting.pages.curve:build_curve_page",
    "comparison": "thresher.reporting.pages.comparison:build_comparison_page",
    "transfer": "thresher.reporting.pages.bases.transfer:build_transfer_page",
    "soup": "thresher.reporting.pages.adapters.soup:build_soup_page",
    "experts": "thresher.reporting.pages.adapters.experts:build_experts_page",
    "tuning": "thresher.reporting.pages.tuning:build_tuning_page",
    "why": "thresher.reporting.pages.why:build_why_page",
    "snapshot": "thresher.reporting.pages.snapshot:build_snapshot_page",
    "curated": "thresher.reporting.pages.curated:build_curated_page",
    "corrected": "thresher.reporting.pages.labels.corrected:build_corrected_page",
    "asked": "thresher.reporting.pages.labels.asked:build_asked_page",
    "labeled": "thresher.reporting.pages.labels.joined:build_labeled_page",
    "joined": "thresher.reporting.pages.labels.joined:build_joined_page",
    "refined": "thresher.reporting.pages.labels.joined:build_refined_page",
    "label-budget": "thresher.reporting.pages.labels.budget:build_budget_page",
    "grown": "thresher.reporting.pages.labels.grown:build_grown_page",
    "grown-rounds": "thresher.reporting.pages.labels.grown:build_rounds_page",
}
KEYS = {
    "subset": ("method", "settings", "budget", "quota", "order", "seed", "features", "inputs", "schema", "id_column",
               "counts", "notes", "objective", "versions", "run"),
    "adapter": ("settings", "versions", "run"),
    "curated": ("rules", "inputs", "counts", "notes", "large_drops", "versions", "run"),
    "snapshot": ("job", "version", "rules", "weight", "objective", "versions", "run"),
}  # fmt: skip


def report(folder: str | Path) -> Path:
    """Write the page of an output folder, `report.html`, and each of its figures as PNG and SVG.

    The page is one file that fetches nothing. The same folder gives the same bytes; nothing else in
    the folder changes.

    Args:
        folder: written by `select`, `clean`, `correct`, `train`, `experts`, `soup`,
            `learning_curve`, `compare`, `tune`, `advise`, `mix`, `why`, `base`, `label` or `grow`,
            or a job's snapshot.

    Returns:
        The path of the page.

    Raises:
        ManifestError: the folder is of a kind without a page, or one of its files is missing or
            damaged.
        MissingExtraError: the packages of the extra `report` are not installed.
    """
    path = expand_path(localize(folder))
    if not path.is_dir():
        what = "a file" if path.exists() else "nothing"
        raise ManifestError(f"{path}: must be a folder that thresher wrote, found {what}")
    manifest = Manifest.read(path)
    kind = manifest.content.get("kind")
    if kind not in PAGES:
        raise ManifestError(f"{path}: a folder of kind '{kind}' has no page; kinds with one: {', '.join(PAGES)}")
    missing = [key for key in KEYS.get(str(kind), ()) if key not in manifest.content]
    if missing:
        raise ManifestError(f"{path}: its manifest must have {', '.join(missing)}, found none; create the folder again")
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "report", "report")
    from thresher.reporting.figure_files import render_figure
    from thresher.reporting.rendering import render

    module, _, name = PAGES[kind].partition(":")
    page: Page = getattr(importlib.import_module(module), name)(path, manifest)
    written = {name: data for figure in page.figures() for name, data in render_figure(figure).items()}
    written[REPORT] = render(page)
    for name, content in written.items():
        write_atomic(path / name, content)
    upload_files(path, list(written))
    return path / REPORT
