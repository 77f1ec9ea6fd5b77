"""The update of a core set: which new rows enter, which old rows leave, and why.

`choose.py` selects within budget and total, `core_set.py` grows a core set, `dropped_rows.py`
records who left, `fingerprint.py` says when all must be chosen again, `change_report.py` counts
what changed.
"""
