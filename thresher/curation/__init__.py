"""Curation: a loop on the first noun, dataset -> dataset + manifest. One rule per file, found by entry point."""

from thresher.curation.rule import EVAL, EXISTING, Rows, Rule, available, create
from thresher.curation.verdict import POOL, Verdict, drop_where

__all__ = ["EVAL", "EXISTING", "POOL", "Rows", "Rule", "Verdict", "available", "create", "drop_where"]
