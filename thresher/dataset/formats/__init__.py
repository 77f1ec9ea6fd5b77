"""File formats: how rows are read from, located in, and copied out of each kind of file.

`files.py` recognizes a file, `shard.py` is what every format offers, `text_shard.py` covers JSON,
JSON Lines and CSV, `table_shard.py` Parquet and Arrow; `*_spans.py` find the bytes of each row,
`copy_rows.py` writes chosen rows unchanged. Imported by `dataset` only. A new format is one shard
class here and one line in `files.py`.
"""
