"""What an experiment varies and holds out, beyond methods and sizes.

`hold_out.py` picks the rows or groups to measure on, `variants.py` the values of a second factor,
`group_axis.py` the groups that are counted in place of rows;
`plans.py` and `dry_run.py` say what an experiment will take.
Used by the modules of `experiments`; a new way to vary or hold out is a module here.
"""
