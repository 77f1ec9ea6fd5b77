"""Neighbor graphs: the nearest rows of each row, exact or approximate, as a sparse matrix.

`search.py` picks exact or approximate, `inverted_lists.py` is the index, `graph.py` makes a graph
symmetric, `csr.py` is its type, `limits.py` the sizes at which the method changes. Imported by
selectors and by `curation.similarity`; imports `numeric` only.
"""
