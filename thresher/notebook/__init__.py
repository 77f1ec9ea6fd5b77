"""Notebook: what a prompt needs: read any result back, its page, progress while waiting.

`results.py` knows what reads which folder, `progress_board.py` draws in Jupyter. Imported by
`thresher` itself; may import every package but `cli`.
"""
