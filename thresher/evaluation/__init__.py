"""Evaluation: outcomes on held-out rows become numbers, each with its standard error and its n.

`run.py` runs a model over rows, `outcomes.py` makes the table of outcomes, `metric.py` and
`held_out.py` turn it into metrics, `effect.py` compares two methods, `curves/` fits learning curves
and says how many rows are enough. Imported by `trainer`, `experiments` and `reporting`; imports
`models` and below. A new metric is an entry in `metric.py` and a column in `outcomes.py`.
"""
