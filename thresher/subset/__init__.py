"""Subset: budget, quota, scores, the cut, and the subset on disk.

`budget.py` and `quota.py` parse how many rows to keep, `scores.py` is a ranking, `cut.py` turns a
ranking into kept and dropped rows with reasons, `subset.py` is the result. Imported by
`selection`, `trainer`, `experiments` and above; imports `dataset`, `artifacts` and below. A new
reason for a drop is added in `cut.py`.
"""
