"""thresher: which rows should I fine-tune on, and how many are enough?

    import thresher as th

    pool = th.load("alpaca_data.json")
    subset = th.select(pool, budget=0.3)
    adapter = th.train(subset, model="Qwen/Qwen2.5-0.5B", eval="dev.jsonl")

Importing this package is cheap: each name is loaded when it is first used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from thresher.lazy import export_lazily

if TYPE_CHECKING:
    from thresher.artifacts.manifest import Manifest
    from thresher.curation.correction.correct import Corrected, correct
    from thresher.curation.curate import curate
    from thresher.curation.result import Curated
    from thresher.dataset import Dataset, Source, load
    from thresher.errors import ThresherError
    from thresher.experiments.advice.advise import Advice, advise
    from thresher.experiments.advice.choose import select
    from thresher.experiments.attribution.why import Explanation, why
    from thresher.experiments.bases.rank import BaseRanking, rank_bases
    from thresher.experiments.bases.sources import SourceRanking, rank_sources
    from thresher.experiments.bases.transfer import Transfer, transfer
    from thresher.experiments.comparison import Comparison, compare
    from thresher.experiments.curve import LearningCurve
    from thresher.experiments.experts.experts import Experts, experts
    from thresher.experiments.grown.compare_grown import compare_grown
    from thresher.experiments.learning_curve import learning_curve
    from thresher.experiments.mixing.mix import Mix, mix
    from thresher.experiments.prices.label_budget import LabelBudget, label_budget
    from thresher.experiments.soups.soup import Soup, soup
    from thresher.experiments.tuning import Tuning, tune
    from thresher.features import Features
    from thresher.features.table import FeatureTable, score
    from thresher.growth.grow import grow
    from thresher.growth.result import Grown
    from thresher.jobs import run_job
    from thresher.labeling.add import Labeled, add_labels
    from thresher.labeling.ask import Asked, ask_labels
    from thresher.labeling.weak.join import Joined, join_labels
    from thresher.labeling.weak.refine import Refined, refine_labels
    from thresher.notebook.results import open, report  # noqa: A004
    from thresher.selection.dry_run import Plan, plan
    from thresher.subset.budget import Budget
    from thresher.subset.quota import Quota
    from thresher.subset.scores import Scores
    from thresher.subset.subset import Subset
    from thresher.trainer.train import Adapter, TrainSettings, train

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Advice",
    "BaseRanking",
    "Asked",
    "Budget",
    "Comparison",
    "Corrected",
    "Curated",
    "Dataset",
    "Experts",
    "Explanation",
    "FeatureTable",
    "Features",
    "Grown",
    "Joined",
    "Refined",
    "LabelBudget",
    "Labeled",
    "LearningCurve",
    "Manifest",
    "Mix",
    "Plan",
    "Quota",
    "Scores",
    "Soup",
    "Source",
    "SourceRanking",
    "Subset",
    "ThresherError",
    "TrainSettings",
    "Transfer",
    "Tuning",
    "__version__",
    "add_labels",
    "advise",
    "ask_labels",
    "compare",
    "compare_grown",
    "correct",
    "curate",
    "experts",
    "grow",
    "label_budget",
    "join_labels",
    "refine_labels",
    "learning_curve",
    "load",
    "mix",
    "open",
    "plan",
    "rank_bases",
    "rank_sources",
    "report",
    "run_job",
    "score",
    "select",
    "soup",
    "train",
    "transfer",
    "tune",
    "why",
]

_load = export_lazily(
    __name__,
    {
        "Adapter": "trainer.train",
        "Advice": "experiments.advice.advise",
        "BaseRanking": "experiments.bases.rank",
        "Asked": "labeling.ask",
        "Joined": "labeling.weak.join",
        "Refined": "labeling.weak.refine",
        "LabelBudget": "experiments.prices.label_budget",
        "Labeled": "labeling.add",
        "add_labels": "labeling.add",
        "ask_labels": "labeling.ask",
        "Budget": "subset.budget",
        "Corrected": "curation.correction.correct",
        "Comparison": "experiments.comparison",
        "Curated": "curation.result",
        "Dataset": "dataset",
        "Experts": "experiments.experts.experts",
        "Explanation": "experiments.attribution.why",
        "FeatureTable": "features.table",
        "Features": "features",
        "Grown": "growth.result",
        "LearningCurve": "experiments.learning_curve",
        "Manifest": "artifacts.manifest",
        "Mix": "experiments.mixing.mix",
        "Plan": "selection.dry_run",
        "Quota": "subset.quota",
        "Scores": "subset.scores",
        "Soup": "experiments.soups.soup",
        "Source": "dataset",
        "SourceRanking": "experiments.bases.sources",
        "Subset": "subset.subset",
        "ThresherError": "errors",
        "TrainSettings": "trainer.train",
        "Transfer": "experiments.bases.transfer",
        "Tuning": "experiments.tuning",
        "advise": "experiments.advice.advise",
        "correct": "curation.correction.correct",
        "compare": "experiments.comparison",
        "compare_grown": "experiments.grown.compare_grown",
        "curate": "curation.curate",
        "experts": "experiments.experts.experts",
        "grow": "growth.grow",
        "label_budget": "experiments.prices.label_budget",
        "join_labels": "labeling.weak.join",
        "refine_labels": "labeling.weak.refine",
        "learning_curve": "experiments.learning_curve",
        "load": "dataset",
        "mix": "experiments.mixing.mix",
        "open": "notebook.results",
        "plan": "selection.dry_run",
        "rank_bases": "experiments.bases.rank",
        "rank_sources": "experiments.bases.sources",
        "report": "notebook.results",
        "run_job": "jobs",
        "score": "features.table",
        "select": "experiments.advice.choose",
        "soup": "experiments.soups.soup",
        "train": "trainer.train",
        "transfer": "experiments.bases.transfer",
        "tune": "experiments.tuning",
        "why": "experiments.attribution.why",
    },
)


def __getattr__(name: str) -> Any:
    """Import a public name; in a notebook, what runs for long shows its progress."""
    value = _load(name)
    if "ipykernel" not in sys.modules:
        return value
    from thresher.notebook.progress_board import LISTENERS, show_progress

    return show_progress(name, value) if name in LISTENERS else value


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
