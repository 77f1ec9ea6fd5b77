"""Pages of what is asked before a long training: base models, other data, shares of sources.

`sources.py` also has the figure of effects of arms, which other pages use. Imported by `build.py`
through its table of pages. Add the page of another such question here.
"""
