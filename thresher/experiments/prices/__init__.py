"""Prices: learning curves of several kinds of rows, compared for the same money.

`label_budget.py` is the call; the arithmetic is in `evaluation/curves/spending.py`. Imports the
curves of this package; imported by `cli` and `notebook`.
"""
