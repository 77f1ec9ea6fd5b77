"""Weak labels: several rules or annotators per row become one label with its confidence.

`join.py` joins votes, `dawid_skene.py` is the label model; `refine.py` corrects weak labels by
self-training (`cosine.py`) where that helps. Imports `dataset` and below; imported by
`cli` and `notebook`. Another label model is a file here.
"""
