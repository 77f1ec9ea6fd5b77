"""Charts: marks on axes as data, and their drawing as inline SVG without a plotting library.

`chart.py` holds axes and marks, `svg.py` draws them, `palette.py` has the colors. Imported by the
rest of `reporting`; imports `reporting.formatting` only. A new mark is a dataclass in `chart.py`,
drawn in `svg.py` and in `reporting/figure_files.py`.
"""
