"""Sizes at which the neighbor search changes its method."""

from __future__ import annotations

FLAT_ROWS = 30_000  # up to here all pairs are compared, which needs none of this
