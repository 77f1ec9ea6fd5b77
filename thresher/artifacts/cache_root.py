"""Where what can be computed or fetched again is kept."""

from __future__ import annotations

import os
from pathlib import Path

from thresher.artifacts.local_path import refuse_address
from thresher.errors import SettingsError


def default_root() -> Path:
    """Return THRESHER_CACHE, or `thresher` in the platform's cache folder; an absolute path.

    Raises:
        SettingsError: there is no home folder to start from.
        InputError: it is an address.
    """
    named = os.environ.get("THRESHER_CACHE")
    base = named or os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.join("~", ".cache")
    refuse_address(base)
    root = os.path.expanduser(base)
    if root.startswith("~"):  # left as it is where nobody knows the home folder
        raise SettingsError(
            f"cache: '{base}' must lie below a home folder that is known, found none; set THRESHER_CACHE to a folder"
        )
    return Path(root).absolute() if named else Path(root, "thresher").absolute()
