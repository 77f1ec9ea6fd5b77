"""Mixes: how much of each source to train on.

`mix.py` is the call, `design.py` the mixes that are trained, `settings.py` the options. The law
over shares is `evaluation/mixture_law.py`. Imported by `cli`; imports the cells of `experiments`
and below. Another question about a mix is an answer in `mix.py`, read off the law.
"""
