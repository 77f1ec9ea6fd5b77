"""Experiments: the same question asked many times, one cell each (decision record 3)."""
