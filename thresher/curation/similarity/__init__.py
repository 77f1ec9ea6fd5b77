"""Similarity of texts for curation: shingles, groups of duplicates, groups by cosine.

Imported by `curation.rules`; imports `numeric`, the contracts of `curation` and the registry of
features. A new notion of "the same text" goes here, the rule that drops by it into
`curation/rules/`.
"""
