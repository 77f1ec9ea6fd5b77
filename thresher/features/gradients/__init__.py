"""Gradient features: projected gradients of the loss, one vector per row.

`gradient.py` is the provider, `per_example.py` computes per-example gradients of LoRA weights and
projects them. Imported through the registry of `features` only; may import `models`, `cache`,
`dataset`.
"""
