"""Curation: rules judge the rows of a dataset in order; what they keep is a cleaner dataset.

`curate.py` is the call, `pipeline.py` applies the rules, `rule.py` and `verdict.py` say what a rule
is given and answers, `result.py` writes the folder; `correction/` replaces answers. Imports
`dataset`, `features`, `numeric` and `artifacts`; imported by `jobs` and `cli`. A new rule is one
file in `rules/` and one entry point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.lazy import export_lazily

if TYPE_CHECKING:
    from thresher.curation.rule import EVAL, EXISTING, Rows, Rule, available, create
    from thresher.curation.verdict import POOL, Verdict, drop_where

__all__ = ["EVAL", "EXISTING", "POOL", "Rows", "Rule", "Verdict", "available", "create", "drop_where"]

__getattr__ = export_lazily(
    __name__,
    {
        **dict.fromkeys(("EVAL", "EXISTING", "Rows", "Rule", "available", "create"), "rule"),
        **dict.fromkeys(("POOL", "Verdict", "drop_where"), "verdict"),
    },
)
