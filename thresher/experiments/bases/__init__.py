"""Base models and other data: which ones to take, before any long training.

`rank.py` is the call, `candidates.py` says what can be ranked, `labels.py` and `answers.py` score
candidates on labeled rows and on written answers, `ranking.py` turns scores per row into ranks with
intervals. `sources.py` asks which other data set helps, `closeness.py` how near it lies.
`transfer.py` asks whether a choice of rows holds on the next larger model. Imported by `cli`;
imports the cells of `experiments`, the trainer and below. Another score of a base is a column of
`labels.py` or `answers.py`.
"""
