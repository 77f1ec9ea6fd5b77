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
    from thresher.budget import Budget, Quota
    from thresher.dataset import Dataset, load
    from thresher.errors import ThresherError
    from thresher.features import Features
    from thresher.manifest import Manifest
    from thresher.scores import Scores
    from thresher.selection import select
    from thresher.subset import Subset
    from thresher.training import Adapter, TrainSettings, train

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Budget",
    "Dataset",
    "Features",
    "Manifest",
    "Quota",
    "Scores",
    "Subset",
    "ThresherError",
    "TrainSettings",
    "__version__",
    "load",
    "select",
    "train",
]

_HOME = {
    "Adapter": "thresher.training",
    "Budget": "thresher.budget",
    "Dataset": "thresher.dataset",
    "Features": "thresher.features",
    "Manifest": "thresher.manifest",
    "Quota": "thresher.budget",
    "Scores": "thresher.scores",
    "Subset": "thresher.subset",
    "ThresherError": "thresher.errors",
    "TrainSettings": "thresher.training",
    "load": "thresher.dataset",
    "select": "thresher.selection",
    "train": "thresher.training",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'thresher' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
