"""Selectors: pure functions of features that rank rows.

One file per method; `contract.py` says what a selector declares, `registry.py` finds it by its
entry point, `functions.py` makes one of a plain function; `nested.py` keeps rankings that serve
several budgets, `submodular` and `neighbors` hold what several methods share. Imported by
`selection`, `experiments` and above; imports `features`, `subset` and below, never a model. A new
method is a file here and a line in pyproject.toml.
"""

from thresher.features.requirements import Requirements
from thresher.selectors.contract import Selector
from thresher.selectors.functions import selector
from thresher.selectors.registry import available, create

__all__ = ["Requirements", "Selector", "available", "create", "selector"]
