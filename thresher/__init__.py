"""thresher: which rows should I fine-tune on, and how many are enough?

    import thresher as th

    pool = th.load("alpaca_data.json")
    subset = th.select(pool, "facility-location", budget=0.3)
    adapter = th.train(subset, model="Qwen/Qwen2.5-0.5B", eval="dev.jsonl")

Importing this package is cheap: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thresher.artifacts.manifest import Manifest
    from thresher.curation.correction.correct import Corrected, correct
    from thresher.curation.curate import curate
    from thresher.curation.result import Curated
    from thresher.dataset import Dataset, load
    from thresher.errors import ThresherError
    from thresher.experiments.comparison import Comparison, compare
    from thresher.experiments.curve import LearningCurve
    from thresher.experiments.learning_curve import learning_curve
    from thresher.experiments.tuning import Tuning, tune
    from thresher.features import Features
    from thresher.features.table import FeatureTable, score
    from thresher.jobs import run_job
    from thresher.reporting import report
    from thresher.selection.dry_run import Plan, plan
    from thresher.selection.run import select
    from thresher.subset.budget import Budget
    from thresher.subset.quota import Quota
    from thresher.subset.scores import Scores
    from thresher.subset.subset import Subset
    from thresher.trainer.train import Adapter, TrainSettings, train

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Budget",
    "Comparison",
    "Corrected",
    "Curated",
    "Dataset",
    "FeatureTable",
    "Features",
    "LearningCurve",
    "Manifest",
    "Plan",
    "Quota",
    "Scores",
    "Subset",
    "ThresherError",
    "TrainSettings",
    "Tuning",
    "__version__",
    "compare",
    "correct",
    "curate",
    "learning_curve",
    "load",
    "plan",
    "report",
    "run_job",
    "score",
    "select",
    "train",
    "tune",
]

_HOME = {
    "Adapter": "thresher.trainer.train",
    "Budget": "thresher.subset.budget",
    "Corrected": "thresher.curation.correction.correct",
    "Comparison": "thresher.experiments.comparison",
    "Curated": "thresher.curation.result",
    "Dataset": "thresher.dataset",
    "FeatureTable": "thresher.features.table",
    "Features": "thresher.features",
    "LearningCurve": "thresher.experiments.learning_curve",
    "Manifest": "thresher.artifacts.manifest",
    "Plan": "thresher.selection.dry_run",
    "Quota": "thresher.subset.budget",
    "Scores": "thresher.subset.scores",
    "Subset": "thresher.subset.subset",
    "ThresherError": "thresher.errors",
    "TrainSettings": "thresher.trainer.train",
    "Tuning": "thresher.experiments.tuning",
    "correct": "thresher.curation.correction.correct",
    "compare": "thresher.experiments.comparison",
    "curate": "thresher.curation.curate",
    "learning_curve": "thresher.experiments.learning_curve",
    "load": "thresher.dataset",
    "plan": "thresher.selection.dry_run",
    "report": "thresher.reporting",
    "run_job": "thresher.jobs",
    "score": "thresher.features.table",
    "select": "thresher.selection.run",
    "train": "thresher.trainer.train",
    "tune": "thresher.experiments.tuning",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'thresher' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
