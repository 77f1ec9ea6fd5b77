"""Deployment: a trained adapter on new texts, and the commands that serve it.

`predict.py` answers or classifies, the base beside the adapter, by `settings.py`; `serving.py`
names the ways to serve. Imported by `trainer` and `cli`; a new way to serve goes into `serving.py`.
"""
