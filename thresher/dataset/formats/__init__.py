"""File formats: how rows are read from, located in, and copied out of each kind of file.

`files.py` reads the bytes, `shard.py` is what every format offers, `text_shard.py` covers JSON,
JSON Lines and CSV, which `text_files.py` opens, `table_shard.py` tables, whose files are in
`tables/`; `*_spans.py` find the bytes of each row, `copy_rows.py` writes chosen rows unchanged.
Imported by `dataset` only. A new format is one shard class here, its suffix in
`dataset/sources.py`, and a line in `_open_file` of `dataset/loading.py`.
"""
