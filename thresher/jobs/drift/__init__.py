"""Drift: the profile of a snapshot's rows, and the gates that a new snapshot must pass.

`profile.py` summarizes rows, `gates.py` compares two profiles. Imported by `jobs/pipeline.py`.
"""
