"""Labeling: which rows to label next, and how the answers come back.

`ask.py` chooses the next rows (`choose.py`), says what they are expected to bring (`gain.py`) and
writes them for people (`exchange.py`, `page.py`) or lets a server answer (`annotator.py`); `add.py`
takes answers back (`answers.py`). `pool.py` reads rows that have no label yet. Imports `selectors`,
`evaluation`, `models` and below; imported by `cli` and `notebook`.
"""
