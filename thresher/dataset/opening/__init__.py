"""Opening: from a path, a Hub id, a frame or dicts to shards.

`open_rows.py` tells them apart, `in_memory.py` knows what is in memory already. Imports `formats`;
`loading.py` imports it. A new kind of source goes into `open_rows.py`.
"""
