"""What pages show of single rows, for the pages of subsets, cleaned pools and experiments.

`pool.py` reads the pool again, `pool_map.py` draws it as a map, and `subset_rows.py` puts kept rows
beside dropped ones.
"""
