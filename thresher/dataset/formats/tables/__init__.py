"""Tables: Parquet and Arrow files, and how large they are once they are decoded.

`parquet_file.py` and `arrow_file.py` yield the rows of a file in batches that fit memory;
`parquet_pages.py` and `arrow_messages.py` read what the files declare, `row_sizes.py` measures
rows. Imported by `table_shard.py` only. A new kind of table file goes beside them.
"""
