"""Pages of several adapters: merged into one (`soup.py`), or each on its cluster (`experts.py`).

`commands.py` has the command lines that write such folders again. Imported by `reporting/build.py`
and `pages/reproduce.py`. A new page is a file here and a line in `reporting/build.py`.
"""
