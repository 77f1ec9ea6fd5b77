"""Correction: answers and labels that are replaced instead of dropped.

`correct.py` is the arrow (dataset -> corrected dataset + manifest), `replace_answer.py` puts an
answer into a row of any schema. Imported by `cli`; imports `features`, `models`, `dataset`,
`artifacts`.
"""
