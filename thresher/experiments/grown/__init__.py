"""Grown rows in experiments: does training with rows that a model wrote beat training without?

`compare_grown.py` is the call: both sides are cells of one experiment, with equal steps. Imported
by `cli`; imports `comparison`, `runner` and `cells`. A further question about such rows is a module
here.
"""
