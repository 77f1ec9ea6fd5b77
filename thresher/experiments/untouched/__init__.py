"""The untouched model in experiments: measured once for all cells.

`row_zero.py` is the section `base` of the results of `curve`, `compare` and `tune`. Imported by
these; imports `runner`, `experiment` and the trainer's `untouched`. A further question about what
training changes is a module here and a section of the results.
"""
