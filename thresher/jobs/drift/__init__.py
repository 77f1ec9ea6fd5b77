"""Drift: how rows are distributed, and the gates that a new snapshot must pass.

`distributions.py` counts rows and measures divergences, `gates.py` compares them with limits.
Imports nothing of `jobs` but the settings; imported by `jobs/drift_report.py` and `update/`. A new
measure is a count in `drift_report.py` and a name in `MEASURES`.
"""
