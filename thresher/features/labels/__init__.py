"""Features of labels: cross-fitted class probabilities, and the label issues they point to.

`class_probability.py` is the provider, `cross_fit.py` fits out of fold, `folds.py` splits,
`label_issues.py` ranks labels. Imported through the registry of `features`, and by
`curation.rules` and `curation.correction`.
"""
