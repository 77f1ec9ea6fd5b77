"""Similarity of texts for curation: shingles, groups of duplicates, groups by cosine.

Imported by `curation.rules`; imports `selectors.neighbors` for the search, `numeric` and
`dataset`. A new notion of "the same text" goes here, the rule that drops by it into
`curation/rules/`.
"""
