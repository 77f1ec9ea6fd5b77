"""In-context utility: how much one row, shown as an example, helps to answer another.

`in_context_utility.py` is the provider, `example_pairs.py` says which pairs are tried. Imported
through the registry of `features` only; may import `models`, `cache`, `dataset`.
"""
