"""Typed forms of numba's `njit`, as selectors use them."""

from thresher.compiled import compiled, compiled_fast

__all__ = ["compiled", "compiled_fast"]
