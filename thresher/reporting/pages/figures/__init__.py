"""Figures that pages draw from the numbers of a folder.

`curve_figure.py` draws learning curves, `loss_figure.py` losses over steps, `dot_plot.py` rates
with their errors, `pilot.py` how `auto` decided, `moved_layers.py` what training did to the weights
of each layer. Imported by `reporting.pages` alone.
"""
