"""The untouched model: what it can do before any training, on the rows that training is judged by.

`settings.py` are the options, `row_zero.py` measures the base model once and keeps it in
`base_cache.py`, `shots.py`
puts training rows into its prompts, `probe.py` are the two references of a classifier, `summary.py`
the section `base` of `metrics.json` and its sentence. Imported by `trainer` and `experiments`. A
new reference is a function in `row_zero.py` or `probe.py` and its name in `summary.py`.
"""
