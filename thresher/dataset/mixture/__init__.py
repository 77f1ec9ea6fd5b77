"""Mixture: rows of several sources side by side, each read in its own way, in one set of columns.

`source.py` says how one source is read, `parsing.py` and `sources_file.py` how people write that;
`join.py` chooses the columns that all sources share, and joins them; `mapped_shard.py` gives a file
in these columns; `reload.py` reads what a manifest names, `recorded.py` how a folder was read.
Imports the rest of `dataset`; `loading.py` imports it. A new setting of a source goes into
`SourceSettings` of `settings.py`.
"""
