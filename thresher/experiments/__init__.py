"""Experiments: the same question asked many times, one cell each (decision record 3).

`learning_curve`, `compare` and `tune` each plan cells and say what they show; `experiment` is what
the cells of one call share, `runner` runs them, `cells/` is one cell, its cache and its workers,
`design/` what is varied and held out. Imported by `cli` only; imports everything below `jobs`. A
new kind of experiment is a module here.
"""
