"""Weak labels: several rules or annotators per row become one label with its confidence.

`join.py` is the call, `dawid_skene.py` the label model. Imports `dataset` and below; imported by
`cli` and `notebook`. Another label model is a file here.
"""
