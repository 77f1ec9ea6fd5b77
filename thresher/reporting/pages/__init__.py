"""Pages: one module per kind of output folder.

Each has one function from a folder to a `Page`; `reporting/build.py` finds it by the folder's
kind. Figures of a single page are in modules next to it. Imported by `reporting/build.py` only.
A new page is a file here and a line in `build.py`.
"""
