"""Learning curves: their laws, and how many rows are about as good as all.

`laws.py` has the laws, `curve_fit.py` averages them, `row_noise.py` is how points err together,
`enough.py` gives the answer, `joint_law.py` adds a second factor, `plots.py` draws. Imported by
`experiments`; a new law is an entry in `laws.py`.
"""
