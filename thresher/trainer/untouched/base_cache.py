"""Where measurements of untouched models are kept; importing it loads no torch."""

from __future__ import annotations

from thresher.cache.folder_cache import FolderCache


def get_base_cache() -> FolderCache:
    """Return the cache of what untouched models did on rows."""
    return FolderCache("base")
