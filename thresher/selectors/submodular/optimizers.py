"""The named variants of the greedy algorithm, and what is known of each."""

from __future__ import annotations

OPTIMIZERS = ("lazy", "stochastic", "threshold")
EPSILON = 0.1


def describe_guarantee(optimizer: str, epsilon: float, n_neighbors: int = 0) -> str:
    """Say what every prefix of the picks has of the largest objective of so many rows.

    Args:
        optimizer: one of OPTIMIZERS.
        epsilon: its setting.
        n_neighbors: of a sparse kernel; 0 where all pairs are compared.
    """
    if optimizer == "lazy":
        known = "exact greedy: every prefix has at least 1 - 1/e of the largest objective"
    else:
        kind = "in expectation " if optimizer == "stochastic" else ""
        known = f"{optimizer} greedy: every prefix has {kind}at least 1 - 1/e - {epsilon:g} of the largest objective"
    return known + describe_restriction(n_neighbors)


def describe_restriction(n_neighbors: int) -> str:
    """Say what a guarantee is restricted to by a sparse kernel."""
    return f", on the graph of {n_neighbors} nearest neighbors: pairs outside it count as 0" if n_neighbors else ""
