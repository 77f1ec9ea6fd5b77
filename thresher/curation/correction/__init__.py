"""Correction: answers that are replaced instead of dropped.

`correct.py` is the call (dataset -> corrected dataset + manifest), `settings.py` its options,
`judge.py` compares two answers, `abstain.py` finds what a model does not know, and
`replace_answer.py` puts an answer into a row of any schema. Imported by `cli`; imports `features`,
`models`, `dataset`, `artifacts`.
"""
