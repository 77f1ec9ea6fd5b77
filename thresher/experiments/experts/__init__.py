"""Experts: one adapter or several? K adapters on clusters of the rows, with two controls.

`settings.py` are the options, `clusters.py` divides the rows and routes questions, `runs.py` trains
and measures, `experts.py` is the call and its folder. Imported by `cli`. Another way to divide rows
is a function in `clusters.py`.
"""
