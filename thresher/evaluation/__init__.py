"""Evaluation: outcomes on held-out rows become numbers, each with its standard error and its n."""
