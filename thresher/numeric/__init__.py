"""Numeric: arrays in, arrays out. Nothing here knows what a row, a feature or a model is.

k-means, cluster helpers, matrix products, vector norms, numba compilation, thread counts and
units of measure. Any package may import it; it imports `errors` only. Add a computation here when
two packages need it and its arguments are plain numpy arrays.
"""
