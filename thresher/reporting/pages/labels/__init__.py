"""Pages of labels and of written rows: which rows are asked for, who said what, what was refused.

One file per kind of folder. Each reads the files of its folder and returns a `Page`. Imports what
the other pages import; a new kind of folder of labels is a file here and a line in `build.py`.
"""
