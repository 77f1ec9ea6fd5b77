"""Features: what is computed once per row, and read by every selector and rule.

`registry.py` is the contract of a feature and finds one by name, `context.py` says which models
run, `compute.py` computes, `cost.py` estimates, `table.py` is `score`. Features of one family share
a folder: `likelihood/`, `gradients/`, `utility/`, `labels/`, `answers/`. Imports `models`, `cache`
and `dataset`, never a selector or a rule. A new feature is one file and one entry point.
"""

from thresher.cache.feature_cache import CacheEntry, FeatureCache
from thresher.features.compute import column_values, compute, fingerprints
from thresher.features.container import Features
from thresher.features.context import FeatureContext, make_context
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.models.encoders.load import load_encoder, resolve_encoder
from thresher.models.encoders.minilm import minilm_folder
from thresher.progress import Progress

__all__ = [
    "CacheEntry",
    "FeatureCache",
    "FeatureContext",
    "Features",
    "FeatureValues",
    "Progress",
    "column_values",
    "compute",
    "fingerprints",
    "load_encoder",
    "make_context",
    "minilm_folder",
    "resolve_encoder",
    "FeatureProvider",
]
