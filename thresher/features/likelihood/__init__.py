"""Likelihood features: the loss of each row under a model or a reference; hidden states.

`loss.py`, `reference_loss.py` and `hidden_states.py` are providers. Imported through the registry
of `features` only; may import `models`, `cache`, `dataset`. Another statistic of the same forward
pass belongs in `loss.py`.
"""
