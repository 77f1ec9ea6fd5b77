"""Charts as inline SVG: axes, marks and colors, without any plotting library.

`svg.py` writes elements, `chart.py` lays out axes and legends, `palette.py` holds the colors.
Imported by `reporting.pages`; imports `errors` only. A new mark is a function in `chart.py`.
"""
