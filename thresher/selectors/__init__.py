"""Selectors: pure functions of features that rank rows. One file each, found by entry point."""

from thresher.selectors.registry import Selector, available, create

__all__ = ["Selector", "available", "create"]
