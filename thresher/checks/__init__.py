"""Checks: whether an answer that a model wrote says what a reference says, by reading alone.

`contract.py` is what a check answers and how one is found by name, `number.py` compares final
numbers, `words.py` whole texts, choices, JSON and patterns, `automatic.py` takes for each reference
the check of its form. No check runs what a model wrote. Imports `plugins` and below; imported by
features, curation and growth. A new check is one class and one entry point of `thresher.checks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.lazy import export_lazily

if TYPE_CHECKING:
    from thresher.checks.contract import Check, available, create_check

__all__ = ["Check", "available", "create_check"]

__getattr__ = export_lazily(__name__, dict.fromkeys(__all__, "contract"))
