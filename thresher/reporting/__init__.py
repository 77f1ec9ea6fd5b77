"""Reporting: one self-contained HTML page of any output folder.

`build.py` finds the page of a folder in `pages/`; a page is data (`page.py`) with charts
(`charts/`), which `rendering.py` writes as HTML and `figure_files.py` as PNG and SVG. Imported by
`cli`; imports `selection`, `trainer`, `evaluation` and below. A new page is a file in `pages/`.
"""

from thresher.reporting.build import report

__all__ = ["report"]
