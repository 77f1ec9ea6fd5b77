"""Snapshots: the versions of a curated pool on disk, and what is written beside each.

`folder.py` names, publishes and prunes versions, `write.py` writes one, `read.py` opens one,
`table.py` is its Parquet table, `card.py` and `exports.py` its card and exports, `seen_ids.py` the
rows that some run has evaluated. A new export is a function in `exports.py` and a line in
`write.py`.
"""
