"""Figures of results for notebooks: matplotlib draws what a curve and a comparison have written.

`plots.py` draws from the content of a result alone. Imported by `curve` and `comparison`, and only
when a figure is asked for, so that nothing else needs matplotlib; the charts of pages are of
`reporting`. A figure of another result is a function here and a `plot` method there.
"""
