"""Advice: the whole question in one call, step by step, each step the folder of its own command.

`advise.py` is the call and its steps, `answers.py` words what they showed. Imported by `cli`;
imports `experiments`, `selection`, `curation` and `trainer`. A further step is a function in
`advise.py` and its answer in `answers.py`.
"""
