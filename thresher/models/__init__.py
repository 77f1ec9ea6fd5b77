"""Models: everything that holds weights or talks to a server that does.

`settings.py` says which models run and how, `context.py` carries that with the cache, `stages.py`
describes the steps that are run; `encoders/` embed text, `causal_lm/` read and score it,
`generation/` writes answers (in this process or through a server), `weights/` holds the two shipped
models. Imported by `features`, `trainer`, `evaluation` and above; knows nothing of features.
"""
