"""The update of the pool: which new rows enter, which old rows leave, and why.

`curate.py` applies the rules, `choose.py` selects within budget and total, `core_set.py` is the
weighted cut, `dropped_rows.py` records who left, `fingerprint.py` says when all rows are evaluated
again, `change_report.py` and `manifest.py` describe the result. Imported by `jobs/pipeline.py`.
"""
