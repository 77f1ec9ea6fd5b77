"""Models: everything that holds weights or talks to a server that does.

`settings.py` says which models run and how; `encoders/` embed text, `causal_lm/` read and score
text, `generation/` writes answers (in this process or through a server), `weights/` holds the two
shipped models. Imported by `features`, `trainer`, `evaluation` and above; knows nothing of
features, selectors or rules.
"""
