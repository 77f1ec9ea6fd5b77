"""Curation rules: one file each, found by entry point (`thresher.curation` in `pyproject.toml`).

A rule is a frozen dataclass with a pure `check`: rows and features in, one verdict per row out.
Rules never import each other; what several share is in `curation.similarity`,
`curation/masking.py` and `dataset/normalize.py`. To add one: a file here, one entry point, an
oracle in `tests/curation/rules/`.
"""
